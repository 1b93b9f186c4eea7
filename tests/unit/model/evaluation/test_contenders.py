"""Every contender is what its name says, and scores do not depend on padding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from model.config import MambaConfig, ModelConfig
from model.evaluation.contenders import ABLATIONS, CONTENDERS, Contender
from model.evaluation.mixers import windowed_attention
from model.reranker import MambaReranker, score_windows
from tests.factories import image, tiny_config, window

ALL = {**CONTENDERS, **ABLATIONS}
CPU = torch.device("cpu")


def tiny(contender: Contender) -> ModelConfig:
    """As `contender` has it, but small."""
    if contender.config is MambaConfig:
        kept = {k: v for k, v in contender.sizes.items() if k not in ("dim", "tokens_per_image")}
        return tiny_config(**kept)
    small = {"dim": 16, "attention_heads": 2, "attention_window": 16, "mlp_dim": 32}
    shared = tiny_config().model_dump(include=set(ModelConfig.model_fields) - {"scale_levels"})
    return contender.config.model_validate(shared | dict(contender.sizes) | small)


@pytest.mark.parametrize("name", sorted(ALL))
def test_it_can_be_trained_and_padding_does_not_count(name: str) -> None:
    torch.manual_seed(0)
    config = tiny(ALL[name])
    contender = ALL[name].build(config)
    rng = np.random.default_rng(0)
    short, long = window(rng, config, 3), window(rng, config, 8)
    logits, mask = contender(contender.collate([short, long]))
    assert logits.shape == mask.shape
    logits[mask].square().sum().backward()
    assert any(p.grad is not None and bool((p.grad != 0).any()) for p in contender.parameters())
    contender.eval()
    (alone,) = score_windows(contender, [short], CPU)
    together, _ = score_windows(contender, [short, long], CPU)
    np.testing.assert_allclose(together, alone, atol=1e-3)


@pytest.mark.parametrize("length", [5, 16, 41])
def test_windowed_attention_is_full_attention_under_a_band(length: int) -> None:
    generator = torch.Generator().manual_seed(length)
    q, k, v = torch.randn(3, 2, 3, length, 4, generator=generator)
    valid = torch.rand(2, length, generator=generator) < 0.8
    places = torch.arange(length)
    band = (places[:, None] - places[None, :]).abs() <= 8
    allowed = band & valid[:, None, None, :]
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
    found = windowed_attention(q, k, v, valid, 8)
    sees_something: Tensor = allowed.any(-1).expand(2, 3, length)
    torch.testing.assert_close(found[sees_something], expected[sees_something])


def test_the_callers_order_counts_only_where_it_is_meant_to() -> None:
    rng = np.random.default_rng(1)
    config = tiny_config()
    torch.manual_seed(0)
    contender = ABLATIONS["in the caller's order"].build(config).eval()
    one = window(rng, config, 6)
    turned = type(one)(one.query, one.gallery[::-1])
    first, second = score_windows(contender, [one, turned], CPU)
    assert np.abs(first - second[::-1]).max() > 1e-5


def test_ablations_leave_out_what_they_name() -> None:
    config = tiny_config()
    parameters = {
        name: sum(p.numel() for p in contender.build(config).parameters() if p.requires_grad)
        for name, contender in ALL.items()
        if contender.config is MambaConfig
    }
    ours = parameters["ours"]
    for name in parameters:
        if name.startswith("without") and name != "without the learnt metric":
            assert parameters[name] < ours
    assert parameters["ours, no mixer"] < parameters["ours"]


def test_one_of_them_learns_no_metric() -> None:
    config = tiny_config()
    size = config.global_dim + config.descriptor_dim
    for name, learns in (("ours", True), ("without the learnt metric", False)):
        reranker = ALL[name].build(config)
        assert isinstance(reranker, MambaReranker)
        reranker.learn_metric(np.full((size, size), 2, np.float32))
        assert torch.equal(reranker.metric, torch.eye(size)) is not learns


def test_images_without_locals_do_not_break_the_pairwise_transformer() -> None:
    config = tiny_config()
    contender = CONTENDERS["pairwise transformer"].build(config).eval()
    rng = np.random.default_rng(2)
    one = window(rng, config, 2)
    bare = image(rng, config, rows=1, with_global=False)
    scores = score_windows(contender, [type(one)(bare, [bare, *one.gallery])], CPU)[0]
    assert np.isfinite(scores).all()
