"""Whether lengths of descriptors fit each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from model.descriptors import DescriptorSizes

MIN_DIM, MAX_DIM = 2, 4096
"""Lengths that a local or a global descriptor may have."""


Part = Literal["descriptors", "global"]
"""The field of an image that has the length."""


@dataclass(frozen=True)
class Misfit:
    """A part of an image with another length than expected."""

    part: Part
    expected: int
    actual: int


def misfit(sizes: DescriptorSizes, expected: DescriptorSizes) -> Misfit | None:
    """How `sizes` differ from those `expected`; None if they fit. An image without a global fits
    any length of globals, and any global fits if none is expected."""
    if sizes.local_dim != expected.local_dim:
        return Misfit("descriptors", expected.local_dim, sizes.local_dim)
    length, expected_length = sizes.global_dim, expected.global_dim
    if length is not None and expected_length is not None and length != expected_length:
        return Misfit("global", expected_length, length)
    return None


def joined(sizes: DescriptorSizes, more: DescriptorSizes) -> DescriptorSizes:
    """Merges sizes that fit: the first global fixes the length of globals."""
    return DescriptorSizes(sizes.local_dim, sizes.global_dim or more.global_dim)


def beyond_limits(sizes: DescriptorSizes) -> tuple[Part, str] | None:
    """(part, message) if a length is not between MIN_DIM and MAX_DIM, else None."""
    lengths: dict[Part, int | None] = {
        "descriptors": sizes.local_dim,
        "global": sizes.global_dim,
    }
    for part, length in lengths.items():
        if length is not None and not MIN_DIM <= length <= MAX_DIM:
            return part, f"{length} numbers, but {MIN_DIM} to {MAX_DIM:,} are allowed"
    return None
