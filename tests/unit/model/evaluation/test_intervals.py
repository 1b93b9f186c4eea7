"""Intervals hold the mean, are as wide as the spread makes them, and compare in pairs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.evaluation.intervals import mean_interval


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=12))
def test_the_ends_lie_within_the_values_and_around_the_mean(values: list[float]) -> None:
    of = mean_interval(np.array(values))
    tiny = 1e-9
    assert min(values) - tiny <= of.low <= of.high <= max(values) + tiny
    assert of.mean == pytest.approx(np.mean(values))
    if len(set(values)) == 1:
        assert [of.low, of.high] == pytest.approx([of.mean, of.mean])


def test_many_values_have_the_interval_of_the_normal_distribution() -> None:
    values = np.random.default_rng(1).normal(0.3, 0.2, 900)
    of = mean_interval(values)
    half = 1.96 * values.std() / 900**0.5
    assert [of.low, of.high] == pytest.approx([of.mean - half, of.mean + half], abs=half / 8)


def test_nineteen_of_twenty_intervals_hold_the_true_mean() -> None:
    rng = np.random.default_rng(2)
    held = sum(
        of.low <= 0.5 <= of.high for of in (mean_interval(rng.random(60)) for _ in range(100))
    )
    assert 88 <= held <= 99


def test_a_small_difference_shows_in_pairs_alone() -> None:
    rng = np.random.default_rng(3)
    before = rng.random(50)
    after = before + 0.02 + 0.01 * rng.standard_normal(50)
    assert mean_interval(after - before).low > 0
    assert mean_interval(after).low < mean_interval(before).high


def test_of_nothing_there_is_no_mean() -> None:
    with pytest.raises(ValueError, match="no value"):
        mean_interval(np.empty(0))
