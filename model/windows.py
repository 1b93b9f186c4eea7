"""The windows of a shortlist, and the re-ranking of one list as a state machine.

After LOCORE (Xiao et al., CVPR 2025): a list longer than a window is re-ranked by windows of
`window` images every `stride`; each re-orders its part of the list before the next one is cut.
No I/O, no clock, no tensor: the service and the offline evaluation both run this code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from model.descriptors import ImageDescriptors
from model.scoring import ensemble

Direction = Literal["end-to-start", "start-to-end", "end-to-start-to-end", "start-to-end-to-start"]
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)


@dataclass(frozen=True, eq=False)
class Window:
    """A query and the gallery images that are scored together, in list order."""

    query: ImageDescriptors
    gallery: Sequence[ImageDescriptors]


def plan_windows(count: int, window: int, stride: int, direction: Direction) -> list[slice]:
    """The windows of a list of `count` images, in the order in which they are re-ranked.

    One direction takes ceil((count - window) / stride) + 1 windows, the last one shifted so that
    it too is full. A direction that turns back does not repeat the window at the turn.
    """
    if count < 1:
        raise ValueError("an empty list has no windows")
    if not 1 <= stride <= window:
        raise ValueError("stride must be between 1 and window")
    if count <= window:
        return [slice(0, count)]
    room = count - window
    forward = [*range(0, room, stride), room]
    backward = [room - start for start in forward]
    starts = {
        "start-to-end": forward,
        "end-to-start": backward,
        "start-to-end-to-start": forward + backward[1:],
        "end-to-start-to-end": backward + forward[1:],
    }[direction]
    return [slice(start, start + window) for start in starts]


@dataclass(frozen=True)
class RerankOptions:
    """How one list is re-ranked. `alpha` weighs the first stage, see `model.scoring.ensemble`.
    Unless `listwise`, scores do not depend on windows: these only bound a pass, and the list is
    sorted once at the end."""

    alpha: float
    temperature: float
    window: int
    stride: int
    direction: Direction
    listwise: bool = True

    def plan(self, count: int) -> list[slice]:
        """The windows of a list of `count` images. They overlap only if `listwise`."""
        stride = self.stride if self.listwise else self.window
        return plan_windows(count, self.window, stride, self.direction)


class Reranking:
    """The re-ranking of one list, from the first stage's order to the final one.

    Score the images of `next_window()` and pass their logits to `accept()`, until there is no next
    window. An image is named by its place in the incoming list.
    """

    def __init__(
        self, count: int, first_stage: NDArray[np.float32] | None, options: RerankOptions
    ) -> None:
        """`first_stage`: the global similarities, shape (count,), or None, for which alpha
        counts as 0."""
        if first_stage is not None and first_stage.shape != (count,):
            raise ValueError(f"{count} images but first-stage scores {first_stage.shape}")
        self._options = options
        self._first_stage = first_stage
        self._plan = options.plan(count)
        self._done = 0
        self._order = np.arange(count)
        self._relevance = np.zeros(count, dtype=np.float64)

    @property
    def windows_left(self) -> int:
        return len(self._plan) - self._done

    def next_window(self) -> NDArray[np.int64] | None:
        """The images to score next, as places in the incoming list; None after the last window."""
        if not self.windows_left:
            return None
        return self._order[self._plan[self._done]].copy()

    def accept(self, logits: NDArray[np.float32]) -> None:
        """Take the logits of the images of `next_window()`, in its order, and re-order them."""
        images = self.next_window()
        if images is None:
            raise ValueError("every window has its scores already")
        if logits.shape != images.shape:
            raise ValueError(f"{images.size} images but logits {logits.shape}")
        first_stage = None if self._first_stage is None else self._first_stage[images]
        scores = ensemble(logits, first_stage, self._options.alpha, self._options.temperature)
        self._relevance[images] = scores
        self._order[self._plan[self._done]] = images[np.argsort(-scores, kind="stable")]
        self._done += 1

    def result(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """(order, relevance): places, best first, and the score of each in the last window that it
        was in. Raises ValueError while windows are left."""
        if self.windows_left:
            raise ValueError(f"{self.windows_left} windows have no scores yet")
        order = self._order.copy()
        if not self._options.listwise:
            order = np.argsort(-self._relevance, kind="stable")
        return order, self._relevance[order]
