"""Matches of the local descriptors of two images, to show them, not for re-ranking."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.descriptors import ImageDescriptors


@dataclass(frozen=True)
class Match:
    """Two descriptors that are each other's nearest: places of their rows, and their cosine."""

    query_row: int
    gallery_row: int
    cosine: float


def mutual_matches(query: ImageDescriptors, gallery: ImageDescriptors) -> list[Match]:
    """Pairs of rows that are each other's nearest by cosine, strongest first; padding matches
    nothing."""
    rows, columns = _valid(query), _valid(gallery)
    cosines = query.locals[rows].astype(np.float32) @ gallery.locals[columns].T.astype(np.float32)
    nearest, back = cosines.argmax(axis=1), cosines.argmax(axis=0)
    mutual = np.flatnonzero(back[nearest] == np.arange(len(rows)))
    strength = cosines[mutual, nearest[mutual]]
    return [
        Match(int(rows[mutual[n]]), int(columns[nearest[mutual[n]]]), float(strength[n]))
        for n in np.argsort(-strength, kind="stable")
    ]


def _valid(image: ImageDescriptors) -> NDArray[np.intp]:
    if image.padding is None:
        return np.arange(image.count)
    return np.flatnonzero(~image.padding)
