"""What a way to store images loses, and which is the smallest that loses little."""

from __future__ import annotations

import pytest

from model.evaluation.storage_loss import Loss, Storage, loss, smallest

WHOLE = {"a": (80.0, 60.0), "b": (50.0, 40.0)}


def test_losses_are_over_cells() -> None:
    of = loss({"a": (79.0, 60.5), "b": (49.0, 38.0)}, WHOLE)
    assert (of.recall, of.precision) == pytest.approx((1, 0.75))
    assert of.worst == pytest.approx(2)
    assert of.worst_cell == "b"
    assert loss(WHOLE, WHOLE) == Loss(0, 0, 0, "a")


def test_the_smallest_is_within_both_limits() -> None:
    def form(size: int) -> Storage:
        return Storage("int4", size, False, size)

    losses = {
        form(40): Loss(0, 0.1, 0.4, "a"),
        form(30): Loss(0, 0.1, 0.6, "a"),
        form(20): Loss(0, 1.9, 9, "a"),
        form(10): Loss(0, 2.1, 3, "a"),
    }
    assert smallest(losses, 0.2, 0.5) == form(40)
    assert smallest(losses, 0.2) == form(30)
    assert smallest(losses, 2) == form(20)
    assert smallest(losses, 0.05) is None
