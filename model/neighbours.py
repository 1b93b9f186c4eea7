"""How far the neighbourhoods of a window's images overlap, and how far that may be trusted.

What k-reciprocal encoding (Zhong et al., CVPR 2017) and diffusion (Iscen et al., CVPR 2017) do by
hand on global descriptors is computed here on standardised similarities, and made smooth.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

GRAPHS = ("globals", "locals", "trusted")
"""By globals, by locals, and by both, each weighted by its coherence."""
NEIGHBOURHOODS = (4, 8, 16, 32)
"""Sizes of neighbourhoods that are compared."""

_SOFTNESS = 0.2
"""How soft the edge of a neighbourhood is, in spreads of the similarity."""
_SHARPNESS = 0.5
_LEAST_TRUST = 0.02


def coherence(similarity: Tensor, others: Tensor) -> Tensor:
    """A number between -1 and 1: the correlation over pairs of images of their similarity (i, i)
    with how alike their rows are. Noise has none: there the neighbours of neighbours are no
    nearer than others."""
    rows = torch.where(others, similarity, 0.0)
    count = max(1, rows.shape[0] - 1)
    rows = rows - rows.sum(1, keepdim=True) / count - rows.sum(0, keepdim=True) / count
    rows = torch.where(others, rows + similarity[others].mean(), 0.0)
    units = F.normalize(rows, dim=1)
    second = units @ units.mT
    return _correlation(rows[others], second[others])


def _correlation(first: Tensor, second: Tensor) -> Tensor:
    first, second = first - first.mean(), second - second.mean()
    correlation: Tensor = (first * second).sum() / (first.norm() * second.norm()).clamp(
        min=torch.finfo(first.dtype).tiny
    )
    return correlation


def neighbourhood_overlaps(
    by_globals: Tensor, by_locals: Tensor, trust: Tensor, others: Tensor
) -> Tensor:
    """(GRAPHS x NEIGHBOURHOODS, i, i) of standardised similarities (i, i); `trust` (2,) their
    coherence."""
    weight = trust.clamp(min=_LEAST_TRUST).square()
    weight = weight / weight.norm()
    trusted = weight[0] * by_globals + weight[1] * by_locals
    graphs = torch.stack((by_globals, by_locals, trusted))
    return _overlaps(graphs, others).flatten(0, 1)


def _overlaps(graphs: Tensor, others: Tensor) -> Tensor:
    """(graphs, NEIGHBOURHOODS, i, i): the Bhattacharyya coefficient of where a walk of two steps
    from either image leads, a step leading to images that are, softly, among each other's k
    nearest."""
    images = others.shape[0]
    apart = graphs.masked_fill(~others, -torch.inf)
    falling = apart.sort(dim=2, descending=True).values
    most = max(images - 2, 0)
    places = [min(k - 1, most) for k in NEIGHBOURHOODS]
    edge = falling[:, :, places].permute(0, 2, 1).unsqueeze(3)  # (graphs, k, i, 1)
    edge = torch.where(edge.isfinite(), edge, 0.0)
    among = torch.sigmoid((apart.unsqueeze(1) - edge) / _SOFTNESS)
    strength = torch.exp(_SHARPNESS * apart).unsqueeze(1)
    weights = among * among.mT * strength
    nearest = torch.where(falling[:, :, :1].isfinite(), falling[:, :, :1], 0.0)
    own = torch.exp(_SHARPNESS * nearest).unsqueeze(1)
    weights = weights + own * torch.eye(images, dtype=weights.dtype, device=weights.device)
    step = weights / weights.sum(3, keepdim=True)
    reached = (step @ step).sqrt()
    return reached @ reached.mT
