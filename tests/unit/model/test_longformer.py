"""LOCORE's re-ranker gives the scores of the published code."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model.checkpoint import load_checkpoint, write_config
from model.config import Scoring
from model.longformer import LongformerReranker
from model.reranker import score_windows
from tests.reference import CASES, Reference, reference

CPU = torch.device("cpu")
SCORINGS: tuple[Scoring, ...] = ("max-sum", "max-start", "max-end", "max-prod")


def loaded(found: Reference, folder: Path) -> LongformerReranker:
    """By way of the published file with our config beside it."""
    path = folder / "published.safetensors"
    shutil.copy(found.weights, path)
    write_config(found.config, path)
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
    found = reference(case, scoring=scoring, softmax=softmax)
    expected = found.vectors.get(f"expected.{'softmax' if softmax else 'logit'}.{scoring}")
    if expected is None:
        assert (scoring, softmax) == ("max-prod", False)
        pytest.skip("the reference has no product of raw logits")
    scores = loaded(found, tmp_path).image_logits(found.batch)
    torch.testing.assert_close(scores, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("case", CASES)
def test_padding_and_company_do_not_count(case: str, tmp_path: Path) -> None:
    """The published code has fixed shapes; here a window may be short, in a batch of longer ones,
    and its images may have fewer locals than others."""
    found = reference(case, scoring="max-start")
    model = loaded(found, tmp_path)
    whole = found.windows()
    short = type(whole[0])(whole[0].query, whole[0].gallery[:5])
    (alone,) = score_windows(model, [short], CPU)
    together, *others = score_windows(model, [short, *whole], CPU)
    np.testing.assert_allclose(together, alone, atol=1e-4)
    expected = found.vectors["expected.logit.max-start"].numpy()
    np.testing.assert_allclose(np.array(others)[found.read], expected[found.read], atol=1e-4)
    assert found.read.mean() > 0.5


def test_an_image_without_a_global_is_scored_by_its_locals(tmp_path: Path) -> None:
    found = reference("with_global", scoring="max-end")
    model = loaded(found, tmp_path)
    (window, *_) = found.windows()
    bare = [replace(image, global_=None) for image in window.gallery]
    with_global, without = (
        score_windows(model, [type(window)(window.query, gallery)], CPU)[0]
        for gallery in (window.gallery, bare)
    )
    assert np.isfinite(without).all()
    assert np.abs(with_global - without).max() > 1e-4


def test_in_training_positions_that_short_lists_leave_are_learnt() -> None:
    torch.manual_seed(0)
    found = reference("local_only")
    model = LongformerReranker(found.config).train()
    table = model.language_model.longformer.embeddings.position_embeddings.weight
    reached = torch.zeros(len(table), dtype=torch.bool)
    for _ in range(12):
        table.grad = None
        logits, mask = model(found.batch)
        logits[mask].sum().backward()
        assert table.grad is not None
        reached |= table.grad.abs().sum(1) > 0
    assert reached[800:].any()
    assert not reached[0]
