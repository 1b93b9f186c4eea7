"""Lists that have a deadline: those that get in are done in time, the others are not begun."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.batching.window_queue import Batch
from tests.unit.service.batching.jobs import (
    SPEED,
    added,
    begun,
    job,
    queue,
    score,
)


def test_a_window_that_cannot_be_done_in_time_is_not_started() -> None:
    waiting = queue()
    alone = SPEED.alone(job(4).cost)
    late = added(waiting, 4, deadline=10 + 0.9 * alone)
    timely = added(waiting, 4, deadline=10 + 1.1 * alone)
    batch = waiting.take(now=10)
    assert (batch.jobs, batch.late) == ([timely], [late])
    waiting.release(late)
    assert waiting.take(now=10).late == []


def test_a_list_is_given_up_while_passes_are_left_that_it_has_no_time_for() -> None:
    waiting = queue(max_batch_tokens=1)
    two_windows = job(6)
    alone = SPEED.alone(two_windows.cost)
    late = added(waiting, 6, deadline=1.9 * alone)
    assert late.windows_left == 2
    assert waiting.take(now=0).late == [late]
    assert waiting.take(now=0, pace=0.5).jobs == []


def test_company_makes_nobody_late() -> None:
    waiting = queue()
    alone = SPEED.alone(job(4).cost)
    first = added(waiting, 4, deadline=1.5 * alone)
    second = added(waiting, 4)
    assert waiting.take(now=0).jobs == [first]
    assert waiting.take(now=0).jobs == [second]


@given(
    st.lists(
        st.tuples(st.integers(1, 12), st.floats(0, 0.05), st.floats(0.02, 1)),
        min_size=1,
        max_size=60,
    )
)
@settings(max_examples=60)
def test_lists_of_one_window_that_get_in_are_done_in_time(
    coming: list[tuple[int, float, float]],
) -> None:
    """Where the speed is as it was measured, and lists are refused by it: nobody is let in and
    then given up, however many come."""
    waiting, now = queue(max_queue_tokens=10**9), 0.0
    busy_until = 0.0
    batch = Batch(waiting.take().cost)
    admitted = 0

    def run_until(end: float) -> None:
        nonlocal batch, busy_until
        while busy_until <= end:
            for one in batch.jobs:
                assert busy_until <= one.deadline
            score(waiting, batch)
            batch = waiting.take(busy_until)
            assert batch.late == []
            if not batch.jobs:
                busy_until = end
                return
            busy_until += batch.cost.seconds

    for images, pause, patience in coming:
        now += pause
        run_until(now)
        one = begun(job(images, 12, deadline=now + patience), images)
        if waiting.others_seconds(one, 0) + waiting.own_seconds(one) <= patience:
            waiting.admit(one)
            waiting.add(one)
            admitted += 1
            if busy_until <= now and not batch.jobs:
                busy_until = now
                run_until(now)
    run_until(now + 1000)
    assert waiting.tokens == 0


def test_the_estimate_is_the_passes_of_others_and_its_own() -> None:
    waiting = queue()
    new, alone = job(6), SPEED.alone(job(4).cost)
    assert waiting.others_seconds(new, 0) == 0
    assert waiting.own_seconds(new) == pytest.approx(2 * alone)
    jobs = [added(waiting, 4) for _ in range(3)]
    # A round of the three before each of its two.
    assert waiting.others_seconds(new, 0) == pytest.approx(6 * alone)
    assert waiting.others_seconds(new, 0.5) == pytest.approx(6 * alone + 1)
    for one in jobs:
        waiting.release(one)
    assert waiting.others_seconds(new, 0) == 0
