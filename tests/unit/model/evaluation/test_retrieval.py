"""A tiny task whose figures can be worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from model.config import ElvisConfig, ExtractorId, MambaConfig
from model.descriptors import ImageDescriptors
from model.evaluation.retrieval import (
    best_alpha,
    best_ensemble,
    first_stage,
    labelled_task,
    quality,
    score_shortlists,
    served_options,
)
from model.formats.labels import LabelledImages
from tests.unit.model.evaluation.plane import at

# The query is of class 1; its relevant images are second and fourth nearest of four.
IMAGES = LabelledImages(
    ["q", "a", "b", "c", "d"], np.array([1, 2, 1, 2, 1]), np.array([True] + [False] * 4)
)
TASK = labelled_task(IMAGES, {"q": at(0), "a": at(0.1), "b": at(0.2), "c": at(0.3), "d": at(0.4)})


def test_the_first_stage_is_ordered_by_cosine() -> None:
    lists = first_stage(TASK, top=3)
    assert lists.images.tolist() == [[0, 1, 2]]
    assert lists.rest.tolist() == [[3]]
    np.testing.assert_allclose(lists.scores, np.cos([[0.1, 0.2, 0.3]]), rtol=1e-6)


def test_quality_counts_what_the_shortlist_missed() -> None:
    lists = first_stage(TASK, top=3)
    before = quality(TASK, lists, lists.scores)
    assert before.recall_at_1 == 0
    assert before.map_at_r == pytest.approx(1 / 2 / 2)
    # Image b first: one of the two relevant ones at place 1; the other was not on the list.
    after = quality(TASK, lists, np.array([[0.0, 1.0, 0.5]]))
    assert after.recall_at_1 == 1
    assert after.map_at_r == pytest.approx(1 / 2)


def test_a_scorer_sees_the_shortlist_in_its_order() -> None:
    queries: list[ImageDescriptors] = []

    def scorer(query: ImageDescriptors, gallery: Sequence[ImageDescriptors]) -> NDArray[np.float32]:
        assert query is TASK.queries[0]
        queries.extend(gallery)
        return np.arange(len(gallery), dtype=np.float32)

    scores = score_shortlists(scorer, TASK, first_stage(TASK, top=3))
    assert scores.tolist() == [[0, 1, 2]]
    assert queries == [TASK.gallery[i] for i in (0, 1, 2)]


def test_the_grid_search_finds_the_weight_that_helps() -> None:
    lists = first_stage(TASK, top=4)
    helpful = np.array([[0.0, 1.0, 0.0, 1.0]], np.float32)
    alpha, best = best_alpha(TASK, lists, helpful)
    assert best.map_at_r == 1.0
    assert alpha < 1.0
    _, _, ensembled = best_ensemble(TASK, lists, 10 * helpful - 5)
    assert ensembled.map_at_r == 1.0


def test_an_image_without_descriptors_is_named() -> None:
    with pytest.raises(ValueError, match="5 images have no descriptors, 'q' first"):
        labelled_task(IMAGES, {})


def test_served_options_of_pairs_have_no_overlap_and_no_windows() -> None:
    extractor = ExtractorId(name="made-up", version="1")
    pairs = served_options(ElvisConfig(name="pairs", extractor=extractor))
    assert not pairs.listwise
    assert pairs.plan(2 * pairs.window) == [
        slice(pairs.window, 2 * pairs.window),
        slice(0, pairs.window),
    ]
    lists = served_options(MambaConfig(name="lists", extractor=extractor))
    assert (lists.listwise, lists.stride) == (
        True,
        MambaConfig.model_fields["rerank"].default.stride,
    )
