"""What the learnt metric makes of a task: other cosines of the same images, on the same lists."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from model.descriptors import normalised
from model.evaluation.baselines.cosine import cosine, in_metric
from model.evaluation.retrieval import RetrievalTask, first_stage
from model.metric import described
from tests.factories import image, tiny_config

CONFIG = tiny_config()
RNG = np.random.default_rng(0)
TASK = RetrievalTask(
    [image(RNG, CONFIG) for _ in range(3)],
    [image(RNG, CONFIG) for _ in range(8)],
    RNG.random((3, 8)) < 0.5,
)


def test_without_a_metric_it_is_the_first_stage() -> None:
    lists = first_stage(TASK, 5)
    np.testing.assert_allclose(cosine(TASK, lists), lists.scores, atol=1e-6)


def test_in_a_metric_it_is_the_cosine_of_what_it_makes_of_images() -> None:
    lists = first_stage(TASK, 5)
    size = CONFIG.global_dim + CONFIG.descriptor_dim
    metric = np.random.default_rng(1).standard_normal((size, size)).astype(np.float32)
    found = in_metric(TASK, metric)
    vectors = normalised(described([TASK.queries[0], *TASK.gallery]) @ metric, "vectors")
    expected = (vectors[1:] @ vectors[0])[lists.images[0]]
    np.testing.assert_allclose(cosine(found, lists)[0], expected, atol=1e-5)
    assert (found.relevant == TASK.relevant).all()


def test_a_metric_that_only_lengthens_changes_nothing_but_that_locals_count() -> None:
    size = CONFIG.global_dim + CONFIG.descriptor_dim
    lists = first_stage(TASK, 5)
    once, twice = (
        cosine(in_metric(TASK, scale * np.eye(size, dtype=np.float32)), lists) for scale in (1, 2)
    )
    np.testing.assert_allclose(once, twice, atol=1e-6)
    bare = replace(TASK, gallery=[replace(i, locals=-i.locals) for i in TASK.gallery])
    other = cosine(in_metric(bare, np.eye(size, dtype=np.float32)), lists)
    np.testing.assert_allclose((once + other) / 2, lists.scores / 2, atol=1e-5)
