"""Scores that ELViS's published code gave, and the files it gave them for (tests/data/pairs)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from model.descriptors import ImageDescriptors
from model.pairs.weights import Unwritten, pair_config, pair_reranker, read_state, shapes_of
from model.reranker import ListReranker
from model.windows import Window

PAIRS = Path(__file__).with_name("data") / "pairs"
PAIR_CASES = ("elvis", "elvis_binary")


@dataclass(frozen=True)
class PairReference:
    """`window`: its padding has other locals behind it, as the published code was given it."""

    weights: Path
    window: Window
    expected: NDArray[np.float32]

    def reranker(self) -> ListReranker:
        return published_reranker(self.weights)


def published_reranker(path: Path) -> ListReranker:
    """Of a published file, in this process."""
    state = read_state(path)
    config = pair_config(path, shapes_of(state), Unwritten("pairs", path.stem))
    return pair_reranker(path, config, state)


def pair_reference(case: str) -> PairReference:
    vectors = load_file(PAIRS / case / "vectors.safetensors")
    query = padded_image(vectors["query"], vectors["query_mask"])
    gallery = map(padded_image, vectors["gallery"], vectors["gallery_mask"])
    return PairReference(
        PAIRS / case / "weights.pt", Window(query, list(gallery)), vectors["expected"].numpy()
    )


def padded_image(locals_: Tensor, mask: Tensor) -> ImageDescriptors:
    scales = np.zeros(len(locals_), np.uint8)
    return ImageDescriptors(locals_.numpy(), scales, None, mask.numpy() != 0)
