"""LOCORE's re-ranker gives the scores of the published code."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model.checkpoint import load_checkpoint
from model.config import RerankDefaults, Scoring
from model.config_file import write_config
from model.longformer import LongformerReranker
from model.reranker import score_windows
from model.training.trainer import Trainer, TrainOptions
from model.training.training_lists import ListShape, TrainingList
from model.windows import Window
from tests.reference import CASES, Reference, reference

CPU = torch.device("cpu")
SCORINGS: tuple[Scoring, ...] = ("max-sum", "max-start", "max-end", "max-prod")


def loaded(locore: Reference, folder: Path) -> LongformerReranker:
    """By way of the published file with our config beside it."""
    path = folder / "published.safetensors"
    shutil.copy(locore.weights, path)
    write_config(locore.config, path)
    model = load_checkpoint(path, CPU)
    assert isinstance(model.reranker, LongformerReranker)
    assert not any(t.is_meta for t in model.reranker.buffers())
    return model.reranker


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("scoring", SCORINGS)
@pytest.mark.parametrize("softmax", [False, True])
@torch.inference_mode()
def test_scores_are_those_of_the_published_code(
    case: str, scoring: Scoring, softmax: bool, tmp_path: Path
) -> None:
    locore = reference(case, scoring=scoring, softmax=softmax)
    expected = locore.vectors.get(f"expected.{'softmax' if softmax else 'logit'}.{scoring}")
    if expected is None:
        assert (scoring, softmax) == ("max-prod", False)
        pytest.skip("the reference has no product of raw logits")
    scores = loaded(locore, tmp_path).image_logits(locore.batch)
    torch.testing.assert_close(scores, expected, atol=1e-4, rtol=0)


def test_a_window_in_which_no_image_has_a_global_is_scored(tmp_path: Path) -> None:
    locore = reference("with_global")
    model, windows = loaded(locore, tmp_path), locore.windows()[0]
    bare = Window(
        replace(windows.query, global_=None), [replace(i, global_=None) for i in windows.gallery]
    )
    (alone,) = score_windows(model, [bare], CPU)
    together, with_globals = score_windows(model, [bare, windows], CPU)
    np.testing.assert_allclose(alone, together, atol=1e-4)
    assert np.abs(alone - with_globals).max() > 1e-4


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("scoring", ["max-start", "max-end"])
def test_padding_and_company_do_not_count(case: str, scoring: Scoring, tmp_path: Path) -> None:
    """The published code has fixed shapes; here a window may be short, in a batch of longer ones,
    and its images may have fewer locals than others."""
    locore = reference(case, scoring=scoring)
    model = loaded(locore, tmp_path)
    windows = locore.windows()
    short = type(windows[0])(windows[0].query, windows[0].gallery[:5])
    (alone,) = score_windows(model, [short], CPU)
    together, *others = score_windows(model, [short, *windows], CPU)
    np.testing.assert_allclose(together, alone, atol=1e-4)
    expected = locore.vectors[f"expected.logit.{scoring}"].numpy()
    is_read = locore.read(scoring)
    np.testing.assert_allclose(np.array(others)[is_read], expected[is_read], atol=1e-4)
    assert is_read.mean() > 0.5


def test_an_image_without_a_global_is_scored_by_its_locals(tmp_path: Path) -> None:
    locore = reference("with_global", scoring="max-end")
    model = loaded(locore, tmp_path)
    (window, *_) = locore.windows()
    bare = [replace(image, global_=None) for image in window.gallery]
    with_global, without = (
        score_windows(model, [type(window)(window.query, gallery)], CPU)[0]
        for gallery in (window.gallery, bare)
    )
    assert np.isfinite(without).all()
    assert np.abs(with_global - without).max() > 1e-4


@pytest.mark.slow
def test_in_training_positions_that_short_lists_leave_are_learnt() -> None:
    torch.manual_seed(0)
    locore = reference("local_only")
    model = LongformerReranker(locore.config).train()
    table = model.language_model.longformer.embeddings.position_embeddings.weight
    reached = torch.zeros(len(table), dtype=torch.bool)
    for _ in range(20):
        table.grad = None
        logits, mask = model(locore.batch)
        logits[mask].sum().backward()
        assert table.grad is not None
        reached |= table.grad.abs().sum(1) > 0
    images, slots = locore.batch.image_mask.shape[1], locore.config.slots
    last = 2 + (locore.config.rerank.window + 1) * slots
    # Padding to whole windows of attention has position 1.
    assert reached[last - 20 * slots : last].any()
    assert not reached[last:].any()
    # A list as long as a window starts where it does in use.
    config = locore.config.model_copy(
        update={"rerank": RerankDefaults(window=images - 1, stride=1)}
    )
    model = LongformerReranker(config).train()
    logits, mask = model(locore.batch)
    logits[mask].sum().backward()
    grad = model.language_model.longformer.embeddings.position_embeddings.weight.grad
    assert grad is not None
    assert not grad[2 + images * slots :].any()


@pytest.mark.slow
def test_a_run_with_dropout_goes_on_as_if_it_had_not_been_broken_off(tmp_path: Path) -> None:
    locore = reference("local_only")
    (window, *_) = locore.windows()

    class Same:
        def draw(self, rng: np.random.Generator, _: ListShape) -> TrainingList:
            order = rng.permutation(len(window.gallery))
            return TrainingList(Window(window.query, [window.gallery[n] for n in order]), order < 8)

    def trainer() -> Trainer[LongformerReranker]:
        options = TrainOptions(steps=4, batch=1, warmup=1, ranking=0.0, learning_rate=1e-3)
        return Trainer(lambda: LongformerReranker(locore.config), options, CPU)

    uninterrupted = [step.loss for step in trainer().run(Same())]
    first = trainer()
    for step in first.run(Same()):
        if step.number == 2:
            break
    first.save(tmp_path / "state.pt")
    second = trainer()
    second.resume(tmp_path / "state.pt")
    assert [step.loss for step in second.run(Same())] == uninterrupted[2:]
