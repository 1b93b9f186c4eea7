"""Plots put values in their order and proportion, and keep within their frame."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.evaluation.intervals import Interval
from model.evaluation.plots import WIDTH, gain_plot, interval_plot

SHARES = st.floats(-1, 1)


@given(st.lists(st.tuples(SHARES, SHARES, SHARES), min_size=1, max_size=5))
def test_intervals_keep_their_order_and_the_frame(values: list[tuple[float, float, float]]) -> None:
    gains = [(str(n), Interval(*np.array(sorted(v))[[1, 0, 2]])) for n, v in enumerate(values)]
    plot = interval_plot(gains)
    for mark, (_, gain) in zip(plot.marks, gains, strict=True):
        assert 0 <= mark.low <= mark.mean <= mark.high <= WIDTH
        assert mark.sure == (gain.low > 0 or gain.high < 0)
        assert mark.y < plot.height
        if gain.mean > 0.001:
            assert mark.mean > plot.zero
    assert [tick.at for tick in plot.ticks if tick.label == "0"] == [plot.zero]
    assert 2 <= len(plot.ticks) <= 7 or len(plot.ticks) == 1


def test_a_place_is_proportional_to_its_value() -> None:
    plot = interval_plot([("a", Interval(0.10, 0.05, 0.20))])
    (mark,) = plot.marks
    assert mark.high - plot.zero == pytest.approx(2 * (mark.mean - plot.zero), abs=0.2)
    assert [tick.label for tick in plot.ticks] == ["0", "+5", "+10", "+15", "+20"]


def test_each_query_is_a_step_the_largest_gain_first() -> None:
    plot = gain_plot(np.array([-0.1, 0.0, 0.4, 0.2]))
    heights = [float(y) for y in re.findall(r"V([\d.]+)H", plot.up)]
    assert [round((plot.zero - y) / (plot.zero - heights[1]), 1) for y in heights] == [2.0, 1.0]
    assert len(re.findall(r"V[\d.]+H", plot.down)) == 1
    start, *edges = map(float, re.findall(r"[MH]([\d.]+)", plot.up + plot.down))
    assert start < edges[0] < edges[1] < edges[2] < edges[3] <= WIDTH


def test_where_nothing_changes_nothing_is_drawn() -> None:
    plot = gain_plot(np.zeros(3))
    assert (plot.up, plot.down) == ("", "")
    assert "0" in [tick.label for tick in plot.ticks]
