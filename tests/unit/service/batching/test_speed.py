"""How long passes take, and how that is followed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.cost import WindowCost
from service.batching.speed import BatchCost, Pace, Speed

SMALL, LARGE = WindowCost(10, 2, 9, 10), WindowCost(1000, 101, 9, 901)


def cost_of(speed: Speed, *windows: WindowCost) -> BatchCost:
    batch = BatchCost(speed)
    for window in windows:
        batch = batch.joined(window)
    return batch


def test_three_passes_tell_the_speed() -> None:
    speed = Speed(per_pass=0.004, per_window=0.002, per_unit=1e-5)
    one, eight = cost_of(speed, SMALL).seconds, cost_of(speed, *[SMALL] * 8).seconds
    whole = cost_of(speed, LARGE).seconds
    measured = Speed.from_passes(SMALL, one, eight, LARGE, whole)
    assert measured.per_pass == pytest.approx(speed.per_pass)
    assert measured.per_window == pytest.approx(speed.per_window)
    assert measured.per_unit == pytest.approx(speed.per_unit)


@given(st.floats(1e-5, 1), st.floats(1e-5, 1), st.floats(1e-5, 1))
def test_a_measurement_that_went_wrong_gives_a_usable_speed(
    one: float, eight: float, whole: float
) -> None:
    speed = Speed.from_passes(SMALL, one, eight, LARGE, whole)
    assert min(speed.per_pass, speed.per_window) >= 0
    assert speed.per_unit > 0
    assert speed.alone(LARGE) > speed.alone(SMALL)


def test_a_batch_is_as_wide_and_as_deep_as_its_windows_ask_for() -> None:
    speed = Speed(0, 0, 1)
    batch = cost_of(speed, WindowCost(7, 10, 5, 50), WindowCost(1, 4, 9, 30))
    assert (batch.windows, batch.tokens, batch.padded_tokens) == (2, 80, 2 * 10 * 9)
    assert batch.seconds == 2 * 10 * 9 + 8
    assert cost_of(Speed(3, 2, 1), LARGE).seconds == Speed(3, 2, 1).alone(LARGE)


def test_the_pace_follows_the_passes_and_forgets_them_in_a_pause() -> None:
    pace, now = Pace(), 0.0
    assert pace.factor(now) == 1
    for _ in range(100):
        pace.learn(0.05, now, now + 0.1)
        now += 0.1
    assert pace.factor(now) == pytest.approx(2, abs=0.02)
    pace.rest(now)
    assert pace.factor(now + 1) < pace.factor(now)
    assert pace.factor(now + 60) == pytest.approx(1)
    # The next pass starts from what is left of it.
    pace.learn(0.1, now + 60, now + 60.1)
    assert pace.factor(now + 60.1) == pytest.approx(1)


def test_one_slow_pass_does_not_decide() -> None:
    pace = Pace()
    pace.learn(0.01, 0, 0.1)
    assert pace.factor(0.1) < 1.5
