"""The overlap of the neighbourhoods of a window's images, and how far to trust it.

This is a smooth version, on standardised similarities, of what k-reciprocal encoding (Zhong et al.,
CVPR 2017) and diffusion (Iscen et al., CVPR 2017) compute on global descriptors.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

GRAPHS = ("globals", "locals", "trusted")
"""By globals, by locals, and by both, each weighted by its coherence."""
NEIGHBOURHOODS = (5, 10, 20, 30)
"""Sizes of neighbourhoods that are compared."""
EXPANSIONS = (2, 3, 5, 6)
"""Neighbourhoods are averaged over this many nearest images, including the image itself."""

_EDGE = 0.2
"""Width of the edge of a neighbourhood, in standard deviations of the similarity: wide enough that
rounding moves nothing far. Four times the width costs 2 to 3 points of mAP@R."""
_SHARPNESS = 0.5
_MIN_TRUST = 0.02
_MIN_WEIGHT = 1e-20


def coherence(graphs: Tensor, others: Tensor) -> Tensor:
    """(w, graphs), between -1 and 1, of similarities (w, graphs, i, i): the correlation, over pairs
    of images, of their similarity with the cosine of their rows. It is 0 for noise, where the
    neighbours of neighbours are no nearer than other images."""
    weight = others.to(graphs.dtype)
    images = others.shape[0]
    rows = graphs * weight
    means = rows.sum(-1, keepdim=True) / max(1, images - 1)
    grand = rows.sum((-2, -1), keepdim=True) / max(1, images * (images - 1))
    rows = (rows - means - means.mT + grand) * weight
    units = F.normalize(rows, dim=-1)
    return _correlation(rows, units @ units.mT, weight)


def _correlation(first: Tensor, second: Tensor, weight: Tensor) -> Tensor:
    pairs = (-2, -1)
    count = weight.sum().clamp(min=1)
    first, second = (
        (values - (values * weight).sum(pairs, keepdim=True) / count) * weight
        for values in (first, second)
    )
    lengths = torch.linalg.vector_norm(first, dim=pairs) * torch.linalg.vector_norm(
        second, dim=pairs
    )
    correlation: Tensor = (first * second).sum(pairs) / lengths.clamp(
        min=torch.finfo(first.dtype).tiny
    )
    return correlation


def neighbourhood_overlaps(
    by_globals: Tensor, by_locals: Tensor, trust: Tensor, others: Tensor
) -> Tensor:
    """(w, GRAPHS x NEIGHBOURHOODS, i, i) of standardised similarities (w, i, i); `trust` (w, 2)
    their coherence; `others` (i, i): all pairs but those of an image with itself."""
    weight = trust.clamp(min=_MIN_TRUST).square()
    weight = (weight / torch.linalg.vector_norm(weight, dim=1, keepdim=True))[:, :, None, None]
    trusted = weight[:, 0] * by_globals + weight[:, 1] * by_locals
    graphs = torch.stack((by_globals, by_locals, trusted), dim=1)
    return _overlaps(graphs, others).flatten(1, 2)


def _overlaps(graphs: Tensor, others: Tensor) -> Tensor:
    """(w, graphs, NEIGHBOURHOODS, i, i): the Bhattacharyya coefficient of two neighbourhoods. A
    neighbourhood is a soft set of images that are among each other's k nearest, averaged over an
    image and its nearest (k-reciprocal encoding with local query expansion, Zhong et al., eq. 7 and
    11)."""
    masked = graphs.masked_fill(~others, -torch.inf)
    descending = masked.topk(min(NEIGHBOURHOODS[-1] + 1, len(others)), dim=-1).values
    closest = torch.where(descending[..., :1].isfinite(), descending[..., :1], 0.0)
    strength = torch.exp(_SHARPNESS * torch.where(others, graphs, closest)).unsqueeze(2)
    membership = _nearest(masked, descending, NEIGHBOURHOODS)
    encoded = _with_itself(membership * membership.mT, _EDGE**2).mul_(strength)
    encoded /= encoded.sum(-1, keepdim=True)
    expansion = _with_itself(_nearest(masked, descending, [k - 1 for k in EXPANSIONS]), _EDGE)
    expansion /= expansion.sum(-1, keepdim=True)
    # On a CPU the square root of 0 takes thirty times as long as that of other numbers.
    reach = (expansion @ encoded).clamp_(min=_MIN_WEIGHT).sqrt_()
    return reach @ reach.mT


def _nearest(masked: Tensor, descending: Tensor, sizes: Sequence[int]) -> Tensor:
    """(w, graphs, sizes, i, i): from 0 to `_EDGE`, how surely an image of the last axis is among
    the k nearest."""
    last = max(masked.shape[-1] - 2, 0)
    inner = descending[..., [min(k - 1, last) for k in sizes]]
    outer = descending[..., [min(k, last) for k in sizes]]
    edge = (inner + outer).mT.unsqueeze(-1) / 2
    edge = torch.where(edge.isfinite(), edge, 0.0)
    # The edge is subtracted first, so that a value on it is at the middle to the bit.
    return (masked.unsqueeze(2) - edge).clamp_(-_EDGE / 2, _EDGE / 2).add_(_EDGE / 2)


def _with_itself(weights: Tensor, maximum: float) -> Tensor:
    """In place: weights (…, i, i) in which an image has the maximum for itself."""
    weights.diagonal(dim1=-2, dim2=-1).fill_(maximum)
    return weights
