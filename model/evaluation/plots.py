"""Coordinates of the plots of a report; the template draws them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.evaluation.intervals import Interval

WIDTH = 460
_LEFT = 12
_RIGHT = WIDTH - _LEFT
_TOP, _ROW = 16, 44
_HEIGHT = 220
_MAX_TICKS = 6
_STEPS = (0.5, 1, 2, 5, 10, 20, 50, 100)


@dataclass(frozen=True)
class Tick:
    """A place along an axis, and the number that is written there."""

    at: float
    label: str


@dataclass(frozen=True)
class IntervalMark:
    """A line from `low` to `high` with a dot at `mean`, at height `y`."""

    name: str
    gain: Interval
    y: float
    low: float
    mean: float
    high: float
    sure: bool


@dataclass(frozen=True)
class IntervalPlot:
    height: float
    zero: float
    ticks: Sequence[Tick]
    marks: Sequence[IntervalMark]


@dataclass(frozen=True)
class GainPlot:
    """`up` and `down`: the outlines, as paths, of the queries that gained and that lost."""

    height: float
    zero: float
    ticks: Sequence[Tick]
    up: str
    down: str


def interval_plot(gains: Sequence[tuple[str, Interval]]) -> IntervalPlot:
    """Draws (name, gain as a share)."""
    low, high = _bounds([100 * value for _, gain in gains for value in (gain.low, gain.high)])

    def x(share: float) -> float:
        return round(_LEFT + (100 * share - low) / (high - low) * (_RIGHT - _LEFT), 1)

    marks = [
        IntervalMark(
            name,
            gain,
            _TOP + _ROW * row + 22,
            x(gain.low),
            x(gain.mean),
            x(gain.high),
            gain.low > 0 or gain.high < 0,
        )
        for row, (name, gain) in enumerate(gains)
    ]
    ticks = [Tick(x(value / 100), _label(value)) for value in _round_values(low, high)]
    return IntervalPlot(_TOP + _ROW * len(gains) + 26, x(0), ticks, marks)


def gain_plot(gains: NDArray[np.float64]) -> GainPlot:
    """Draws every query's gain as a share, the largest on the left."""
    ordered = 100 * np.sort(gains)[::-1]
    low, high = _bounds(ordered)

    def y(value: float) -> float:
        return round(_TOP + (high - value) / (high - low) * (_HEIGHT - 2 * _TOP), 1)

    left = _LEFT + 30
    edges = left + np.arange(len(ordered) + 1) / len(ordered) * (_RIGHT - left)

    def outline(sign: int) -> str:
        of = np.flatnonzero(sign * ordered > 0)
        if not of.size:
            return ""
        steps = [f"V{y(ordered[q])}H{edges[q + 1]:.1f}" for q in of]
        return f"M{edges[of[0]]:.1f} {y(0)}{''.join(steps)}V{y(0)}Z"

    ticks = [Tick(y(value), _label(value)) for value in _round_values(low, high)]
    return GainPlot(_HEIGHT, y(0), ticks, outline(1), outline(-1))


def _bounds(values: Sequence[float] | NDArray[np.float64]) -> tuple[float, float]:
    """The axis includes zero and something on both sides of it."""
    low, high = float(np.min(values)), float(np.max(values))
    margin = max(0.5, 0.06 * (max(high, 0) - min(low, 0)))
    return min(low, 0) - margin, max(high, 0) + margin


def _round_values(low: float, high: float) -> list[float]:
    step = next((s for s in _STEPS if (high - low) / s <= _MAX_TICKS), _STEPS[-1])
    first, last = int(np.ceil(low / step)), int(np.floor(high / step))
    return [step * place for place in range(first, last + 1)]


def _label(value: float) -> str:
    return "0" if value == 0 else f"{value:+g}".replace("-", "\N{MINUS SIGN}")
