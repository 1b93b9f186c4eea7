"""Measures the time of re-rankers for one list, in turns, on the same random descriptors."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from model.checkpoint import LoadedModel, new_network
from model.config import ElvisConfig, LongformerConfig
from model.evaluation.baselines.chamfer import chamfer
from model.evaluation.baselines.pairwise import PairwiseConfig, PairwiseReranker
from model.progress import Progress
from model.random_images import random_window
from model.reranker import ListReranker, score_windows
from model.windows import Window

MAXSIM = "MaxSim"
"""Only the best cosine of every query local."""
WARM = 2
"""Rounds before the measurement."""

_OUR_SIZE = {"dim": 64, "depth": 2, "attention_heads": 4, "mlp_dim": 256}
_PUBLISHED_SIZE = {"dim": 768, "depth": 12, "attention_heads": 12, "mlp_dim": 3072}
_DESCRIPTORS = 48

K = TypeVar("K")


@dataclass(frozen=True)
class Speed:
    """Seconds of every counted round, and the re-ranker's weights."""

    seconds: tuple[float, ...]
    weights: int

    @property
    def median(self) -> float:
        return float(np.median(self.seconds))


def speeds(
    model: LoadedModel,
    images: int,
    rounds: int,
    *,
    published: bool = False,
    progress: Progress = iter,
) -> dict[str, Speed]:
    """Measures a list of `images`: the model, ELViS, a pairwise transformer, LOCORE's Longformer at
    about our size and, if `published`, at its own; MaxSim. All but the model are untrained, which
    does not affect the time."""
    window = random_window(model.config, images)
    networks: dict[str, ListReranker] = {model.config.name: model.reranker}
    networks |= _contenders(model, window, published)

    def pass_of(network: ListReranker) -> Callable[[], object]:
        return lambda: score_windows(network, [window], model.device)

    passes: dict[str, Callable[[], object]] = {
        n: pass_of(network) for n, network in networks.items()
    }
    passes[MAXSIM] = lambda: chamfer(window.query, window.gallery)
    weights = {n: sum(p.numel() for p in network.parameters()) for n, network in networks.items()}
    return {
        name: Speed(seconds, weights.get(name, 0))
        for name, seconds in _in_turns(passes, rounds, progress).items()
    }


def batch_speeds(
    model: LoadedModel,
    images: int,
    sizes: Iterable[int],
    rounds: int,
    progress: Progress = iter,
) -> dict[int, Speed]:
    """Measures a pass over each of `sizes` windows."""
    window = random_window(model.config, images)
    weights = sum(p.numel() for p in model.reranker.parameters())

    def pass_of(size: int) -> Callable[[], object]:
        return lambda: score_windows(model.reranker, [window] * size, model.device)

    passes = {size: pass_of(size) for size in sizes}
    turns = _in_turns(passes, rounds, progress)
    return {size: Speed(seconds, weights) for size, seconds in turns.items()}


def profiled(model: LoadedModel, images: int, rounds: int, rows: int = 25) -> str:
    """PyTorch's table of the time of a pass by operation."""
    window = random_window(model.config, images)
    for _ in range(WARM):
        score_windows(model.reranker, [window], model.device)
    kinds = [ProfilerActivity.CPU]
    if model.device.type == "cuda":
        kinds.append(ProfilerActivity.CUDA)
    with profile(activities=kinds) as profiler:
        for _ in range(rounds):
            score_windows(model.reranker, [window], model.device)
    key = f"self_{model.device.type}_time_total"
    table: str = profiler.key_averages().table(sort_by=key, row_limit=rows)
    return table


def _contenders(model: LoadedModel, window: Window, published: bool) -> dict[str, ListReranker]:
    sizes = window.query.sizes
    shared = {
        "extractor": model.config.extractor,
        "descriptors_per_image": _DESCRIPTORS,
    }
    projected = shared | {
        "descriptor_dim": sizes.local_dim,
        "global_dim": sizes.global_dim or 0,
        "project_locals": True,
        "project_global": True,
    }
    configs: list[ElvisConfig | LongformerConfig] = [
        ElvisConfig.model_validate(shared | {"name": "ELViS"}),
        LongformerConfig.model_validate(projected | _OUR_SIZE | {"name": "Longformer, our size"}),
    ]
    if published:
        name = {"name": "Longformer, published size"}
        configs.append(LongformerConfig.model_validate(projected | _PUBLISHED_SIZE | name))
    networks = {c.name: new_network(c, model.device, model.dtype)[0].eval() for c in configs}
    if sizes.global_dim is not None:
        pairwise = PairwiseConfig.model_validate(
            shared
            | {
                "name": "pairwise",
                "descriptor_dim": sizes.local_dim,
                "global_dim": sizes.global_dim,
            }
        )
        network = PairwiseReranker(pairwise).to(model.device, model.dtype).eval()
        networks["pairwise transformer"] = network
    return networks


def _in_turns(
    passes: Mapping[K, Callable[[], object]], rounds: int, progress: Progress
) -> dict[K, tuple[float, ...]]:
    spent: dict[K, list[float]] = {name: [] for name in passes}
    with torch.inference_mode():
        for _ in progress(range(rounds + WARM)):
            for name, one in passes.items():
                started = time.perf_counter()
                one()
                spent[name].append(time.perf_counter() - started)
    return {name: tuple(seconds[WARM:]) for name, seconds in spent.items()}
