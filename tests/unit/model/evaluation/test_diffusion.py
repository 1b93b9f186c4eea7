"""Diffusion on graphs small enough to solve by hand."""

from __future__ import annotations

import numpy as np
import pytest

from model.evaluation.baselines.diffusion import affinities, diffused, diffusion
from model.evaluation.retrieval import first_stage
from tests.unit.model.evaluation.plane import angles_task


def test_only_mutual_neighbours_are_joined() -> None:
    cosines = np.array([[1, 0.9, 0.1], [0.9, 1, 0.8], [0.1, 0.8, 1]], np.float32)
    graph = affinities(cosines, k=1)
    expected = np.zeros((3, 3))
    expected[0, 1] = expected[1, 0] = 0.9**3
    np.testing.assert_allclose(graph, expected, rtol=1e-6)


def test_a_walk_of_two_steps_along_a_chain() -> None:
    # Query, a, b in a chain: S has 1/sqrt(2) on both edges; f solves (I - S/2) f = e_0.
    chain = np.array([[0.0, 1, 0], [1, 0, 1], [0, 1, 0]])
    step = 0.5 / np.sqrt(2)
    second = step / (1 - 2 * step**2)
    assert diffused(chain, 0.5).tolist() == pytest.approx([second, step * second])


def test_reaches_along_the_manifold() -> None:
    task = angles_task(0.0, [0.25, 0.5, 0.8, -0.8])
    lists = first_stage(task, top=4)
    scores = diffusion(task, lists, k=2, weight=0.9)
    by_image = dict(zip(lists.images[0].tolist(), scores[0].tolist(), strict=True))
    assert by_image[2] > by_image[3]
