"""The graph by which the images of a window share evidence.

This is a smooth version of what k-reciprocal encoding (Zhong et al., CVPR 2017) and diffusion
(Iscen et al., CVPR 2017) compute on global descriptors. It is computed twice: in the metric, and by
globals and strongest locals together. No rank decides who is a neighbour, so rounding cannot flip a
rank and change a score.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.projected.comparison import Comparison, masked_mean, standardised
from model.window_batch import WindowBatch

NEIGHBOURHOODS = (8, 16, 32)
"""Sizes of neighbourhoods that are compared."""

GRAPHS = 3 + 2 * len(NEIGHBOURHOODS)
"""By the globals, in the metric, by the strongest locals, and by how far neighbourhoods overlap:
those in the metric, and those by globals and strongest locals together."""

COMPARED_LOCALS = 12
_IN_METRIC, _PLAIN = 0.1, 0.2
"""How soft the edge of a neighbourhood is, in standard deviations of the similarity."""
_SHARPNESS = 2.5


def graphs(batch: WindowBatch, comparison: Comparison) -> tuple[Tensor, Tensor]:
    """(standardised, overlaps), float32 (w, GRAPHS, i, i), every graph standardised over the pairs
    of a window, and float64 (w, GRAPHS - 3, i, i), the overlaps as they are."""
    mask = batch.image_mask
    pairs = mask.unsqueeze(2) & mask.unsqueeze(1)
    pairs = pairs & ~torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
    direct = torch.stack(
        (comparison.by_globals, comparison.in_metric, _chamfer(batch, comparison)), dim=1
    )
    direct = standardised(direct, pairs.unsqueeze(1), (2, 3))
    by_globals, in_metric, by_locals = direct.unbind(1)
    compared = ((in_metric, _IN_METRIC), ((by_globals + by_locals) / 2, _PLAIN))
    overlaps = torch.stack(
        [_overlap(graph, pairs, k, soft) for graph, soft in compared for k in NEIGHBOURHOODS], dim=1
    )
    relative = standardised(overlaps, pairs.unsqueeze(1), (2, 3))
    return torch.cat((direct, relative), dim=1).float(), overlaps


def _chamfer(batch: WindowBatch, comparison: Comparison) -> Tensor:
    """(w, i, i): the mean over the strongest locals of the best cosine in the other image, both
    ways."""
    locals_ = comparison.locals[:, :, :COMPARED_LOCALS].double()
    mask = batch.local_mask[:, :, :COMPARED_LOCALS]
    windows, images, count, _ = locals_.shape
    flat = locals_.flatten(1, 2)
    cosines = (flat @ flat.mT).masked_fill(~mask.flatten(1).unsqueeze(1), -1.0)
    best = cosines.view(windows, images, count, images, count).amax(-1)
    one_way = masked_mean(best, mask.unsqueeze(-1), 2)
    return (one_way + one_way.mT) / 2


def _overlap(graph: Tensor, pairs: Tensor, k: int, softness: float) -> Tensor:
    """(w, i, i): the Jaccard similarity of what a walk of two steps from either image reaches,
    a step leading to images that are, softly, among each other's `k` nearest."""
    graph = graph.masked_fill(~pairs, -torch.inf)
    others = pairs.sum(2)  # (w, i)
    descending = graph.sort(dim=2, descending=True).values
    place = (others.clamp(max=k) - 1).clamp(min=0)
    kth = descending.gather(2, place.unsqueeze(2))  # (w, i, 1): the k-th nearest's
    kth = torch.where(others.unsqueeze(2) > 0, kth, 0.0)
    membership = torch.sigmoid((graph - kth) / softness)
    weights = membership * membership.mT * torch.exp(_SHARPNESS * softness * graph)
    nearest = torch.where(others > 0, descending[:, :, 0], 0.0)
    weights = weights + torch.diag_embed(torch.exp(_SHARPNESS * softness * nearest))
    step = weights / weights.sum(2, keepdim=True)
    reach = step @ step
    # Rows sum to 1, so what two rows have in common is 1 minus half of their difference.
    common = 1 - torch.cdist(reach, reach, p=1) / 2
    return common / (2 - common)
