"""The re-rankers that are trained and compared on the same lists, each by its name in the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from model.blocks import ImageAttention
from model.config import LongformerConfig, MambaConfig, ModelConfig
from model.evaluation.baselines.pairwise import PairwiseReranker
from model.evaluation.mixers import LONGFORMER_SIDE, Attention, NoMixer
from model.longformer import LongformerReranker
from model.reranker import ListReranker, MambaReranker
from model.scan import chunked_scan
from model.tokens import Evidence, best_matches

Build = Callable[[Any], ListReranker]


@dataclass(frozen=True)
class Contender:
    """`sizes` and `training` are what its config and TrainOptions have other than ours."""

    build: Build
    sizes: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    config: type[ModelConfig] = MambaConfig


def changed(change: Callable[[MambaReranker], None]) -> Build:
    """Our re-ranker with something replaced or left out."""

    def build(config: MambaConfig) -> MambaReranker:
        reranker = MambaReranker(config)
        change(reranker)
        return reranker

    return build


def with_mixer(make: Callable[[MambaConfig], nn.Module]) -> Build:
    def change(reranker: MambaReranker) -> None:
        for block in reranker.blocks:
            block.mixer = make(reranker.config)

    return changed(change)


class _Nothing(nn.Module):
    """Stands for a module whose output is added to something."""

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0].new_zeros(())


def _without_query_attention(reranker: MambaReranker) -> None:
    for block in reranker.blocks:
        block.query_attention = _Nothing()


def _without_image_layers(reranker: MambaReranker) -> None:
    for block in reranker.blocks:
        block.image_layers = nn.ModuleList()


def _without_likeness_bias(reranker: MambaReranker) -> None:
    for module in reranker.modules():
        if isinstance(module, ImageAttention):
            nn.init.zeros_(module.likeness_weight).requires_grad_(False)


def _silence(*modules: nn.Module) -> None:
    """Their output is 0, and stays it in training."""
    for module in modules:
        for parameter in module.parameters():
            nn.init.zeros_(parameter).requires_grad_(False)


def _without_features(reranker: MambaReranker) -> None:
    """Neither in the tokens nor on the way around the blocks."""
    _silence(reranker.tokens.local_features, reranker.tokens.image_features, reranker.evidence)


def _without_metric(reranker: MambaReranker) -> None:
    reranker.learn_metric = lambda _: None  # type: ignore[assignment,method-assign]


def _without_descriptors(reranker: MambaReranker) -> None:
    """What is read are relations between images alone."""
    tokens = reranker.tokens
    _silence(tokens.local_projection, tokens.global_projection, tokens.mean_projection)


def _in_the_callers_order(reranker: MambaReranker) -> None:
    reranker.order = lambda batch: torch.arange(  # type: ignore[method-assign]
        batch.image_mask.shape[1], device=batch.image_mask.device
    ).expand(batch.image_mask.shape)


def _reading_the_strongest(reranker: MambaReranker) -> None:
    def strongest(whole: Evidence, count: int) -> Evidence:
        alike = replace(whole, found=replace(whole.found, exact=whole.found.exact * 0))
        return best_matches(alike, count)

    reranker.select = strongest


def _scanning_forward_only(reranker: MambaReranker) -> None:
    reranker.scan = lambda x, forward, backward, a, b, c: chunked_scan(
        x, forward, backward * 0, a, b, c
    )


def locore(learning_rate: float) -> Contender:
    """The published architecture at about the size of ours."""
    sizes = {
        "dim": 96,
        "depth": 3,
        "attention_heads": 4,
        "mlp_dim": 384,
        "project_locals": True,
        "project_global": True,
    }
    return Contender(LongformerReranker, sizes, {"learning_rate": learning_rate}, LongformerConfig)


_FEW = 12
"""As many locals as ours reads of an image; LOCORE's window then spans as many images as in the
paper. A step of LOCORE with 48 takes fifteen times as long: nothing trains so on a CPU."""
_FEW_IN_TRAINING = {"fewest_descriptors": _FEW, "most_descriptors": _FEW}


def short_locore(learning_rate: float) -> Contender:
    whole = locore(learning_rate)
    few = {"descriptors_per_image": _FEW, "attention_window": 128}
    return replace(
        whole, sizes={**whole.sizes, **few}, training={**whole.training, **_FEW_IN_TRAINING}
    )


def short_pairwise(learning_rate: float) -> Contender:
    training = {"learning_rate": learning_rate, **_FEW_IN_TRAINING}
    return Contender(PairwiseReranker, {"descriptors_per_image": _FEW}, training)


CONTENDERS: Mapping[str, Contender] = {
    "ours": Contender(MambaReranker),
    "ours, windowed attention": Contender(with_mixer(lambda c: Attention(c, LONGFORMER_SIDE))),
    "ours, full attention": Contender(with_mixer(lambda c: Attention(c, None))),
    "ours, no mixer": Contender(with_mixer(lambda _: NoMixer())),
    "LOCORE (Longformer)": locore(1e-3),
    "pairwise transformer": Contender(PairwiseReranker, {}, {"learning_rate": 1e-3}),
}
"""What the table shows unless told otherwise."""

ABLATIONS: Mapping[str, Contender] = {
    "without the learnt metric": Contender(changed(_without_metric)),
    "without the descriptors themselves": Contender(changed(_without_descriptors)),
    "without correlation features": Contender(changed(_without_features)),
    "without query attention": Contender(changed(_without_query_attention)),
    "without image layers": Contender(changed(_without_image_layers)),
    "without likeness bias": Contender(changed(_without_likeness_bias)),
    "in the caller's order": Contender(changed(_in_the_callers_order)),
    "reading the strongest locals": Contender(changed(_reading_the_strongest)),
    "reading 6 locals": Contender(MambaReranker, {"tokens_per_image": 6}),
    "reading 24 locals": Contender(MambaReranker, {"tokens_per_image": 24}),
    "scanning forward only": Contender(changed(_scanning_forward_only)),
    "two blocks of three image layers": Contender(MambaReranker, {"depth": 2, "image_layers": 3}),
    "width 64": Contender(MambaReranker, {"dim": 64}),
    "width 128": Contender(MambaReranker, {"dim": 128}),
    "trained on lists of 32 to 64": Contender(MambaReranker, {}, {"shortest": 32, "longest": 64}),
    "trained by cross-entropy alone": Contender(MambaReranker, {}, {"ranking": 0.0}),
    "learning rate 0.001": Contender(MambaReranker, {}, {"learning_rate": 1e-3}),
    "learning rate 0.004": Contender(MambaReranker, {}, {"learning_rate": 4e-3}),
    "LOCORE, learning rate 0.0003": locore(3e-4),
    "LOCORE, learning rate 0.003": locore(3e-3),
    "pairwise, learning rate 0.0003": Contender(PairwiseReranker, {}, {"learning_rate": 3e-4}),
    "LOCORE of 12 locals, learning rate 0.0003": short_locore(3e-4),
    "LOCORE of 12 locals, learning rate 0.001": short_locore(1e-3),
    "LOCORE of 12 locals, learning rate 0.003": short_locore(3e-3),
    "pairwise of 12 locals, learning rate 0.0003": short_pairwise(3e-4),
    "pairwise of 12 locals, learning rate 0.001": short_pairwise(1e-3),
}
"""One change each to one of the above."""
