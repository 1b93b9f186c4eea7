"""How long forward passes take: measured at start, then followed.

Pure: no clock. *Estimates* are made of the first measurement."""

from __future__ import annotations

import math
from dataclasses import dataclass

from model.cost import WindowCost

_MEMORY_SECONDS = 2.0
"""Time constant: after this long a pass hardly counts in the pace any more."""


@dataclass(frozen=True)
class Speed:
    """Seconds of a pass, of each window in it, and of each unit of `model.cost`."""

    per_pass: float
    per_window: float
    per_unit: float

    @classmethod
    def from_passes(
        cls, small: WindowCost, one: float, eight: float, large: WindowCost, whole: float
    ) -> Speed:
        """From the seconds of three passes: of `one` small window, of `eight`, of a large one."""
        each = max(0.0, min((eight - one) / 7, one))
        per_unit = max(whole - one, 0.1 * whole) / max(large.alone - small.alone, 1.0)
        return cls(
            per_pass=one - each,
            per_window=max(0.0, each - per_unit * small.alone),
            per_unit=per_unit,
        )

    def alone(self, cost: WindowCost) -> float:
        """Estimated seconds of a pass that has this window only."""
        return self.per_pass + self.per_window + self.per_unit * cost.alone


@dataclass(slots=True)
class BatchCost:
    """Running totals of a batch while windows join it. `own`: of `WindowCost.own`; `images`,
    `slots`: the largest of any window, which all are padded to; `tokens`: without padding."""

    speed: Speed
    windows: int = 0
    tokens: int = 0
    own: float = 0.0
    images: int = 0
    slots: int = 0

    @property
    def padded_tokens(self) -> int:
        """Tokens of the grid, padding included."""
        return self.windows * self.images * self.slots

    @property
    def seconds(self) -> float:
        """An estimate."""
        speed, work = self.speed, self.own + self.padded_tokens
        return speed.per_pass + self.windows * speed.per_window + speed.per_unit * work

    def joined(self, cost: WindowCost) -> BatchCost:
        """The batch with one more window."""
        return BatchCost(
            self.speed,
            self.windows + 1,
            self.tokens + cost.tokens,
            self.own + cost.own,
            max(self.images, cost.images),
            max(self.slots, cost.slots),
        )


class Pace:
    """Seconds that pass for every second estimated: more than 1 where others use the machine, less
    than 1 where windows share passes, since work is estimated as if they did not."""

    def __init__(self) -> None:
        self._factor = 1.0
        self._resting_since = math.inf

    def factor(self, now: float) -> float:
        """Returns to 1 while nothing runs: the cause of a slow pace may be over, and a list that
        is refused for it would not show that."""
        rest = max(0.0, now - self._resting_since)
        return 1 + (self._factor - 1) * math.exp(-rest / _MEMORY_SECONDS)

    def rest(self, now: float) -> None:
        """Nothing runs from now until the next `learn`."""
        self._resting_since = now

    def learn(self, estimate: float, began: float, ended: float) -> None:
        """Work of `estimate` seconds took from `began` to `ended`."""
        before, seconds = self.factor(began), ended - began
        self._resting_since = math.inf
        weight = 1 - math.exp(-seconds / _MEMORY_SECONDS)
        self._factor = before + weight * (seconds / estimate - before)
