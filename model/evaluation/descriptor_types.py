"""Descriptor types of the comparison: those of other or poorer extractors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from model.descriptors import ImageDescriptors

Images = Sequence[ImageDescriptors]
Extracted = Mapping[str, Images]
"""A domain's images by extractor."""

_SEED = 0
_DIRECTIONS = 64


def _projected(images: Images) -> Images:
    """Projects descriptors on 64 random directions."""
    rng = np.random.default_rng(_SEED)
    sizes = images[0].sizes
    of_locals = rng.standard_normal((sizes.local_dim, _DIRECTIONS)).astype(np.float32)
    of_globals = rng.standard_normal((sizes.global_dim or 1, _DIRECTIONS)).astype(np.float32)
    return [
        _with(image, image.locals @ of_locals, _required(image.global_) @ of_globals)
        for image in images
    ]


def _signs(images: Images) -> Images:
    return [_with(i, np.sign(i.locals), np.sign(_required(i.global_))) for i in images]


def _noise_locals(images: Images) -> Images:
    rng = np.random.default_rng(_SEED)
    return [
        _with(i, rng.standard_normal(i.locals.shape).astype(np.float32), _required(i.global_))
        for i in images
    ]


def _noise_globals(images: Images) -> Images:
    rng = np.random.default_rng(_SEED)
    return [
        _with(i, i.locals, rng.standard_normal(len(_required(i.global_))).astype(np.float32))
        for i in images
    ]


def _beside(locals_: Images, globals_: Images) -> Images:
    return [
        replace(image, global_=other.global_)
        for image, other in zip(locals_, globals_, strict=True)
    ]


def _with(
    image: ImageDescriptors, locals_: NDArray[np.floating], global_: NDArray[np.floating]
) -> ImageDescriptors:
    return replace(image, locals=_unit(locals_), global_=_unit(global_))


def _unit(rows: NDArray[np.floating]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.asarray(rows / np.where(lengths > 0, lengths, 1), np.float32)


def _required(global_: NDArray[np.floating] | None) -> NDArray[np.floating]:
    if global_ is None:
        raise ValueError("the descriptor types of the comparison need a global of every image")
    return global_


DESCRIPTOR_TYPES: Mapping[str, tuple[tuple[str, ...], Callable[[Extracted], Images]]] = {
    "Lite0": (("lite0",), lambda e: e["lite0"]),
    "RootSIFT": (("sift",), lambda e: e["sift"]),
    "RootSIFT, Lite0's global": (("sift", "lite0"), lambda e: _beside(e["sift"], e["lite0"])),
    "Lite2": (("lite2",), lambda e: e["lite2"]),
    "XFeat, Lite0's global": (("xfeat", "lite0"), lambda e: _beside(e["xfeat"], e["lite0"])),
    "Lite0, 64 directions": (("lite0",), lambda e: _projected(e["lite0"])),
    "Lite0 as ±1": (("lite0",), lambda e: _signs(e["lite0"])),
    "noise, Lite0's global": (("lite0",), lambda e: _noise_locals(e["lite0"])),
    "Lite0, noise as global": (("lite0",), lambda e: _noise_globals(e["lite0"])),
}
"""By name: the extractors whose files are needed, and the transformation of their descriptors. The
last two types replace a cue by noise."""

EXTRACTORS = tuple(
    dict.fromkeys(name for needed, _ in DESCRIPTOR_TYPES.values() for name in needed)
)
"""The extractors whose files the comparison reads."""
