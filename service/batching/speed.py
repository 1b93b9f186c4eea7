"""How long forward passes take: measured once, when nothing else runs, and followed from then on.

Pure: no clock. Seconds that are *reckoned* are those of the first measurement."""

from __future__ import annotations

import math
from dataclasses import dataclass

from model.cost import WindowCost

_MEMORY_SECONDS = 2.0
"""So long a pass counts in the pace, by and large."""


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
        """Reckoned seconds of a pass that has this window only."""
        return self.per_pass + self.per_window + self.per_unit * cost.alone


class BatchCost:
    """Reckoned seconds and tokens of a batch, while windows join it."""

    def __init__(self, speed: Speed) -> None:
        self.speed = speed
        self.windows = 0
        self.tokens = 0
        self._own = 0.0
        self._images = 0
        self._slots = 0

    @property
    def padded_tokens(self) -> int:
        """Tokens of the grid, padding included."""
        return self.windows * self._images * self._slots

    @property
    def seconds(self) -> float:
        speed, work = self.speed, self._own + self.padded_tokens
        return speed.per_pass + self.windows * speed.per_window + speed.per_unit * work

    def joined(self, cost: WindowCost) -> BatchCost:
        """The batch with one window more."""
        batch = BatchCost(self.speed)
        batch.windows = self.windows + 1
        batch.tokens = self.tokens + cost.tokens
        batch._own = self._own + cost.own
        batch._images = max(self._images, cost.images)
        batch._slots = max(self._slots, cost.slots)
        return batch


class Pace:
    """Seconds that go by for every second that was reckoned. More than one where others use the
    machine, fewer where windows share passes: work is reckoned as if they did not."""

    def __init__(self) -> None:
        self._factor = 1.0
        self._resting_since = math.inf

    def factor(self, now: float) -> float:
        """Where nothing has run for a while it is 1 again: what made it slow may be over, and a
        list that is refused for it would not show that."""
        rest = max(0.0, now - self._resting_since)
        return 1 + (self._factor - 1) * math.exp(-rest / _MEMORY_SECONDS)

    def rest(self, now: float) -> None:
        """There is nothing to do from now until the next `learn`."""
        self._resting_since = now

    def learn(self, reckoned: float, began: float, ended: float) -> None:
        """Work of `reckoned` seconds was done in this time."""
        before, seconds = self.factor(began), ended - began
        self._resting_since = math.inf
        weight = 1 - math.exp(-seconds / _MEMORY_SECONDS)
        self._factor = before + weight * (seconds / reckoned - before)
