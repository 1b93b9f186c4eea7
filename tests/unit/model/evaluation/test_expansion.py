"""Query expansion and database augmentation, worked out on unit vectors of the plane."""

from __future__ import annotations

import numpy as np
import pytest

from model.evaluation.baselines.expansion import database_augmentation, query_expansion
from model.evaluation.retrieval import first_stage
from tests.unit.model.evaluation.plane import angles_task

# By angle from the query, nearest first.
TASK = angles_task(0.0, [0.2, -0.3, 0.6])


def test_the_average_of_the_query_and_its_neighbours_asks_anew() -> None:
    lists = first_stage(TASK, top=3)
    mean = np.array([1 + np.cos(0.2) + np.cos(0.3), np.sin(0.2) - np.sin(0.3)])
    direction = np.arctan2(mean[1], mean[0])
    expected = np.cos(np.array([0.2, -0.3, 0.6]) - direction)
    scores = query_expansion(TASK, lists, k=2, power=0.0)
    assert scores[0].tolist() == pytest.approx(expected.tolist(), abs=1e-6)


def test_alpha_weights_by_a_power_of_the_cosine() -> None:
    lists = first_stage(TASK, top=3)
    weight = np.cos(0.2) ** 3
    mean = np.array([1 + weight * np.cos(0.2), weight * np.sin(0.2)])
    direction = np.arctan2(mean[1], mean[0])
    expected = np.cos(np.array([0.2, -0.3, 0.6]) - direction)
    scores = query_expansion(TASK, lists, k=1, power=3.0)
    assert scores[0].tolist() == pytest.approx(expected.tolist(), abs=1e-6)


def test_database_augmentation_moves_gallery_images_to_their_neighbours() -> None:
    lists = first_stage(TASK, top=3)
    # The nearest of 0.2 is 0.6, and the other way round; that of -0.3 is 0.2.
    expected = np.cos([(0.2 + 0.6) / 2, (-0.3 + 0.2) / 2, (0.6 + 0.2) / 2])
    scores = database_augmentation(TASK, lists, k=1, power=0.0)
    assert scores[0].tolist() == pytest.approx(expected.tolist(), abs=1e-6)
