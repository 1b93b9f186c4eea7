"""`small` gives the scores that it gave when it was the default."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model.checkpoint import LoadedModel, load_checkpoint
from model.descriptors import DescriptorSizes
from model.projected.projected_config import ProjectedConfig
from model.reranker import score_windows
from model.shipped import checkpoint_file
from model.windows import Window
from tests.factories import window
from tests.small import reference

CPU = torch.device("cpu")
REFERENCE = reference()


@pytest.fixture(scope="module")
def small() -> LoadedModel:
    return load_checkpoint(checkpoint_file(Path("small")), CPU)


def test_its_config(small: LoadedModel) -> None:
    config = small.config
    assert isinstance(config, ProjectedConfig)
    assert (config.name, config.sizes) == ("small", DescriptorSizes(128, 512))
    assert small.kernel == "plain"


@pytest.mark.parametrize("place", range(len(REFERENCE)))
def test_logits_are_those_of_the_former_default(small: LoadedModel, place: int) -> None:
    of_window, expected = REFERENCE[place]
    (logits,) = score_windows(small.reranker, [of_window], CPU)
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_padding_and_company_do_not_change_a_score(small: LoadedModel) -> None:
    """All windows in one batch, as wide as the longest and as deep as the image of most locals."""
    together = score_windows(small.reranker, [of_window for of_window, _ in REFERENCE], CPU)
    for logits, (_, expected) in zip(together, REFERENCE, strict=True):
        np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_neither_order_nor_copies_change_a_score(small: LoadedModel) -> None:
    of_window, expected = REFERENCE[4]
    order = [*np.random.default_rng(0).permutation(len(expected)), 0, 3, 3]
    named = Window(of_window.query, [of_window.gallery[place] for place in order])
    (logits,) = score_windows(small.reranker, [named], CPU)
    np.testing.assert_allclose(logits, expected[order], atol=1e-4)


def test_a_missing_global_counts(small: LoadedModel) -> None:
    of_window, expected = REFERENCE[1]
    bare = replace(of_window.gallery[0], global_=None)
    (logits,) = score_windows(
        small.reranker, [Window(of_window.query, [bare, *of_window.gallery[1:]])], CPU
    )
    assert np.abs(logits - expected).max() > 1e-2


@pytest.mark.parametrize("sizes", [DescriptorSizes(64, 512), DescriptorSizes(128, 256)])
def test_descriptors_of_other_sizes_are_refused(small: LoadedModel, sizes: DescriptorSizes) -> None:
    other = window(np.random.default_rng(1), small.config, 5, sizes=sizes)
    with pytest.raises(ValueError, match="are wanted, not"):
        score_windows(small.reranker, [other], CPU)
