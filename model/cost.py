"""The cost of a window in a forward pass, as plain numbers: forming batches needs no tensors."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WindowCost:
    """The unit is the work of one token in the network, padding or not.

    `own`: work for this window alone, in its own shape. `images` (with the query) and `slots`
    (tokens of an image): its shape in the grid, which has the largest of both in a batch. `tokens`:
    those of the grid that are not padding.
    """

    own: float
    images: int
    slots: int
    tokens: int

    @property
    def alone(self) -> float:
        """Work of the window in a pass of its own."""
        return self.own + self.images * self.slots
