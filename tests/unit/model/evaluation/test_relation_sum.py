"""The sum of relations is what the network starts from."""

from __future__ import annotations

import numpy as np
import torch

from model.evaluation.baselines.relation_sum import relation_sum
from model.reranker import score_windows
from model.windows import Window
from tests.factories import image, tiny_config, tiny_model, window

CONFIG = tiny_config()


def test_is_the_networks_evidence_before_it_learns() -> None:
    """A network of which all else is silenced gives the same, but for a factor."""
    model = tiny_model()
    torch.nn.init.zeros_(model.head.weight)
    torch.nn.init.zeros_(model.head.bias)
    one = window(np.random.default_rng(0), CONFIG, 12)
    (logits,) = score_windows(model, [one], torch.device("cpu"))
    sums = relation_sum(one.query, one.gallery)
    assert sums.shape == (12,)
    factor = logits / sums
    np.testing.assert_allclose(factor, factor.mean(), rtol=1e-2)
    assert factor.mean() > 0


def test_finds_the_query_itself() -> None:
    rng = np.random.default_rng(1)
    one = Window(image(rng, CONFIG), [image(rng, CONFIG) for _ in range(9)])
    assert relation_sum(one.query, [*one.gallery, one.query]).argmax() == 9
