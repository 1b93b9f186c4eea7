"""Contenders are judged on the same lists, by settings that others' queries chose."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from model.checkpoint import LoadedModel
from model.descriptors import ImageDescriptors
from model.evaluation.intervals import mean_interval
from model.evaluation.judgement import MAP_AT_R, R_AT_1, R_AT_5, Judgement, judge
from model.evaluation.measures import recall_at
from model.evaluation.retrieval import first_stage, labelled_task, quality, window_logits
from model.formats.labels import LabelledImages
from model.progress import Progress
from model.scoring import ensemble
from tests.factories import image, load_sized, load_tiny, tiny_config

CONFIG = tiny_config()
OF_A_CLASS = 6


def made(classes: int, noise: float = 1.5) -> tuple[LabelledImages, dict[str, ImageDescriptors]]:
    rng = np.random.default_rng(classes)
    ids, described = [], {}
    for c in range(classes):
        like = image(rng, CONFIG)
        for n in range(OF_A_CLASS):
            other = image(rng, CONFIG)
            assert like.global_ is not None
            assert other.global_ is not None
            ids.append(f"{c}-{n}")
            described[ids[-1]] = ImageDescriptors(
                like.locals + noise * other.locals,
                like.scales,
                like.global_ + noise * other.global_,
            )
    numbers = np.arange(len(ids))
    return LabelledImages(ids, numbers // OF_A_CLASS, numbers % 3 == 0), described


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_tiny(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def judgement(model: LoadedModel) -> Judgement:
    return judge(*made(5), model, top=12)


def test_the_checkpoint_is_judged_as_it_is_served(judgement: Judgement, model: LoadedModel) -> None:
    images, described = made(5)
    task = labelled_task(images, described)
    lists = first_stage(task, 12)
    own = model.config.rerank
    logits = window_logits(model.reranker, task, lists, model.device)
    scores = ensemble(logits, lists.scores, own.alpha, own.temperature)
    for contender, order in ((judgement.first, lists.scores), (judgement.served, scores)):
        expected = quality(task, lists, order)
        assert contender.figures[R_AT_1].mean() == expected.recall_at_1
        assert contender.figures[MAP_AT_R].mean() == pytest.approx(expected.map_at_r)
    np.testing.assert_array_equal(judgement.before, lists.images)
    ranked = np.take_along_axis(task.relevant, judgement.after, axis=1)
    np.testing.assert_array_equal(judgement.served.figures[R_AT_5], recall_at(ranked, 5))
    assert judgement.served.setting == "alpha=0.5 T=1"
    assert [len(judgement.queries), len(judgement.gallery)] == [10, 20]
    assert judgement.relevant[0].tolist() == [i.startswith("0-") for i in judgement.gallery]


def test_every_contender_is_named_and_compared_in_pairs(judgement: Judgement) -> None:
    assert [contender.name for contender in judgement.contenders] == [
        "first stage",
        "Chamfer",
        "k-reciprocal",
        "tiny",
        "tiny, tuned",
        "tiny, in a metric",
    ]
    chamfer, first = judgement.untrained[0], judgement.first
    difference = chamfer.figures[MAP_AT_R] - first.figures[MAP_AT_R]
    assert chamfer.gains(first)[MAP_AT_R] == mean_interval(difference)
    assert chamfer.means()[R_AT_1].mean == chamfer.figures[R_AT_1].mean()
    assert first.seconds is None
    assert all(c.seconds is not None and c.seconds > 0 for c in judgement.contenders[1:])
    assert "alpha=" in chamfer.setting
    assert "k1=" in judgement.untrained[1].setting


def test_no_setting_flatters_its_own_queries(judgement: Judgement, model: LoadedModel) -> None:
    """The best setting of all queries, on these, is at least as good as the cross-validated."""
    images, described = made(5)
    task = labelled_task(images, described)
    lists = first_stage(task, 12)
    logits = window_logits(model.reranker, task, lists, model.device)
    scores = ensemble(logits, lists.scores, judgement.alpha, judgement.temperature)
    best = quality(task, lists, scores).map_at_r
    assert best >= judgement.tuned.figures[MAP_AT_R].mean()
    assert best >= judgement.served.figures[MAP_AT_R].mean()


def test_a_metric_that_is_learnt_from_labels_helps_on_other_labels(model: LoadedModel) -> None:
    """Where images of a class differ in the same few directions, that is what it learns."""
    images, described = made(24, noise=0.5)
    rng = np.random.default_rng(0)
    spread = rng.standard_normal((2, 12)).astype(np.float32)
    shaken = {}
    for name, of in described.items():
        assert of.global_ is not None
        moved = of.global_ + 2 * rng.standard_normal(2).astype(np.float32) @ spread
        shaken[name] = ImageDescriptors(of.locals, of.scales, moved.astype(np.float32))
    rerank = model.config.rerank.model_copy(update={"alpha": 1.0})
    by_globals = LoadedModel(model.reranker, model.device, model.dtype, "plain", None)
    before = model.reranker.config
    model.reranker.config = before.model_copy(update={"rerank": rerank})
    try:
        judgement = judge(images, shaken, by_globals, top=96)
    finally:
        model.reranker.config = before
    assert judgement.in_metric is not None
    assert judgement.in_metric.gains(judgement.served)[MAP_AT_R].low > 0.1


def test_without_enough_labels_there_is_no_metric(model: LoadedModel) -> None:
    judgement = judge(*made(3), model, top=12)
    assert judgement.in_metric is None
    assert len(judgement.contenders) == 5
    # One that asks for descriptors of one size could not read longer globals.
    assert judge(*made(5), load_sized(), top=12).in_metric is None


def test_shortlists_end_with_the_window_and_cover_what_they_can(model: LoadedModel) -> None:
    judgement = judge(*made(5), model, top=5000)
    assert judgement.before.shape == (10, 20)
    assert judgement.coverage == 1
    short = judge(*made(5), model, top=2)
    there = np.take_along_axis(short.relevant, short.before, axis=1).sum(1)
    # Of the four relevant images a list of two can have two.
    assert short.coverage == pytest.approx((there / 2).mean())


def test_progress_is_told_of_every_query(model: LoadedModel) -> None:
    places_by_name: dict[str, list[int]] = {}

    def progress(name: str) -> Progress:
        def over(queries: Iterable[int]) -> Iterable[int]:
            for query in queries:
                places_by_name.setdefault(name, []).append(query)
                yield query

        return over

    judge(*made(5), model, top=12, progress=progress)
    assert places_by_name["tiny"] == [*range(10)]
    # In the halves of the labels: three of them, then two.
    assert places_by_name["tiny, in a metric"] == [*range(6), *range(4)]


def test_one_query_is_too_few(model: LoadedModel) -> None:
    images, described = made(5)
    one = images.only(~images.is_query | (np.arange(30) == 0))
    with pytest.raises(ValueError, match="one query"):
        judge(one, described, model, top=12)
