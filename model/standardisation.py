"""Values in standard deviations from their mean, over a list or over pairs of images."""

from __future__ import annotations

import math

import torch
from torch import Tensor

BOUND = 8.0
ROUNDING = 16 * torch.finfo(torch.float32).eps


def standardised(values: Tensor, dims: tuple[int, ...], mask: Tensor | None = None) -> Tensor:
    """Standardise over `dims`, bounded by BOUND; masked entries are 0. Where the spread is within
    rounding all are 0."""
    count: float | Tensor
    if mask is None:
        count = float(math.prod(values.shape[dim] for dim in dims))
        differences = values - values.mean(dims, keepdim=True)
    else:
        weight = mask.to(values.dtype)
        count = weight.sum(dims, keepdim=True).clamp(min=1)
        values = torch.where(mask, values, 0.0)
        differences = (values - values.sum(dims, keepdim=True) / count) * weight
    # Cosines and standardised values are of order 1: rounding is relative to 1 at least.
    largest = torch.linalg.vector_norm(values, torch.inf, dim=dims, keepdim=True).clamp(min=1.0)
    return _scaled(differences, dims, count, largest)


def standardised_pairs(values: Tensor) -> Tensor:
    """Standardise (…, i, i) in place over pairs of two images; the diagonal is 0. Values must be of
    order 1."""
    images = values.shape[-1]
    count = float(max(1, images * (images - 1)))
    values.diagonal(dim1=-2, dim2=-1).zero_()
    values -= values.sum((-2, -1), keepdim=True) / count
    values.diagonal(dim1=-2, dim2=-1).zero_()
    return _scaled(values, (-2, -1), count, 1.0)


def _scaled(
    differences: Tensor, dims: tuple[int, ...], count: float | Tensor, largest: float | Tensor
) -> Tensor:
    """In place: differences from the mean, divided by their spread."""
    deviation = torch.linalg.vector_norm(differences, dim=dims, keepdim=True) / count**0.5
    scale = torch.where(deviation <= ROUNDING * largest, 0.0, 1 / deviation)
    return differences.mul_(scale).clamp_(-BOUND, BOUND)
