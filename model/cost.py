"""What a window costs a forward pass: plain numbers, so that who forms batches needs no tensor."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WindowCost:
    """The unit is the work of one token in the network, padding or not.

    `own`: work that is done for the window alone, in its own shape. `images` (with the query) and
    `slots` (tokens of an image): what it takes of the grid, in which a batch is as wide as its
    widest window and as deep as its deepest. `tokens`: those of the grid that are no padding.
    """

    own: float
    images: int
    slots: int
    tokens: int

    @property
    def alone(self) -> float:
        """Work of the window where nothing is padded."""
        return self.own + self.images * self.slots
