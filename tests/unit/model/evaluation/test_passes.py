"""The weights that are searched for, and the order that logits give."""

from __future__ import annotations

import numpy as np

from model.evaluation.benchmark_data import Lists
from model.evaluation.passes import GRID, Pass, best_of_grid, ensembled
from model.evaluation.protocols import Protocol


def test_the_grid_finds_the_weights_that_help() -> None:
    """Of two images the second is right: the first stage says the first, the logits the second."""
    lists = Lists(np.array([[8, 9, 7]]), np.array([[0.9, 0.6, 0.5]], np.float32), np.array([3]))
    logits = np.array([[-1.0, 1.0]], np.float32)
    protocol = Protocol(
        "all",
        np.array([True]),
        lambda ranking: {"R@1": float(ranking[0, 0] == 9)},
        "R@1",
    )
    choice = best_of_grid([(Pass([protocol], lists), logits)])
    assert choice.value == 1
    assert choice.searched_on == ("all",)
    # T = 0 tells no images apart and leaves the order: the first that helps is T = 0.1.
    assert (choice.alpha, choice.temperature) == (0, 0.1)
    assert ensembled(lists, logits, 0, 0.1).tolist() == [[9, 8, 7]]
    assert ensembled(lists, logits, 1, 1).tolist() == [[8, 9, 7]]
    assert len(GRID) == 11


def test_images_without_logits_stay_where_they_are() -> None:
    lists = Lists(np.array([[8, 9, 7]]), np.ones((1, 3), np.float32), np.array([2]))
    logits = np.array([[-1.0, 1.0, np.nan]], np.float32)
    assert ensembled(lists, logits, 0, 1).tolist() == [[9, 8, 7]]
