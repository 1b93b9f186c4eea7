"""How alike the images of a window are: the graph on which they lend each other evidence.

What k-reciprocal encoding (Zhong et al., CVPR 2017) and diffusion (Iscen et al., CVPR 2017) do by
hand on global descriptors is computed here twice, in a learnt metric (`model.metric`) and by
globals and strongest locals together, and made smooth: no rank decides who is a neighbour, so that
rounding cannot flip one and with it a score.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.batch import WindowBatch
from model.tokens import Correlation, masked_mean, standardised

NEIGHBOURHOODS = (8, 16, 32)
"""Sizes of neighbourhoods that are compared."""

OVERLAPS = 2 * len(NEIGHBOURHOODS)
LIKENESSES = 3 + OVERLAPS
"""By the globals, in the learnt metric, by the strongest locals, and by how far neighbourhoods
overlap: those in the metric, and those by globals and strongest locals together."""

COMPARED_LOCALS = 12
_IN_METRIC, _PLAIN = 0.1, 0.2
"""How soft the edge of a neighbourhood is, in spreads of the likeness."""
_SHARPNESS = 2.5


def likeness(batch: WindowBatch, found: Correlation) -> tuple[Tensor, Tensor]:
    """(standardised, overlap), (w, LIKENESSES, i, i) and (w, OVERLAPS, i, i): every kind of
    likeness standardised over the pairs of a window, and the overlaps as they are."""
    mask = batch.image_mask
    pairs = mask.unsqueeze(2) & mask.unsqueeze(1)
    pairs = pairs & ~torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
    all_three = torch.stack((found.global_, found.refined, _chamfer(batch, found)), dim=1)
    direct = standardised(all_three, pairs.unsqueeze(1), (2, 3))
    of_globals, refined, of_locals = direct.unbind(1)
    graphs = ((refined, _IN_METRIC), ((of_globals + of_locals) / 2, _PLAIN))
    overlap = torch.stack(
        [_overlap(alike, pairs, k, soft) for alike, soft in graphs for k in NEIGHBOURHOODS], dim=1
    )
    relative = standardised(overlap, pairs.unsqueeze(1), (2, 3))
    return torch.cat((direct, relative), dim=1).float(), overlap


def _chamfer(batch: WindowBatch, found: Correlation) -> Tensor:
    """(w, i, i): the mean over the strongest locals of the best cosine in the other image, both
    ways."""
    locals_ = found.locals[:, :, :COMPARED_LOCALS].double()
    mask = batch.local_mask[:, :, :COMPARED_LOCALS]
    windows, images, count, _ = locals_.shape
    flat = locals_.flatten(1, 2)
    cosines = (flat @ flat.mT).masked_fill(~mask.flatten(1).unsqueeze(1), -1.0)
    best = cosines.view(windows, images, count, images, count).amax(-1)
    one_way = masked_mean(best, mask.unsqueeze(-1), 2)
    return (one_way + one_way.mT) / 2


def _overlap(alike: Tensor, pairs: Tensor, k: int, softness: float) -> Tensor:
    """(w, i, i): the Jaccard similarity of what a walk of two steps from either image reaches,
    a step leading to images that are, softly, among each other's `k` nearest."""
    alike = alike.masked_fill(~pairs, -torch.inf)
    images = pairs.shape[1]
    others = pairs.sum(2)  # (w, i)
    falling = alike.sort(dim=2, descending=True).values
    place = (others.clamp(max=k) - 1).clamp(min=0)
    least = falling.gather(2, place.unsqueeze(2))  # (w, i, 1): the k-th nearest's
    least = torch.where(others.unsqueeze(2) > 0, least, 0.0)
    among = torch.sigmoid((alike - least) / softness)
    weights = among * among.mT * torch.exp(_SHARPNESS * softness * alike)
    nearest = torch.where(others > 0, falling[:, :, 0], 0.0)
    own = torch.exp(_SHARPNESS * softness * nearest).unsqueeze(2)
    weights = weights + own * torch.eye(images, dtype=weights.dtype, device=weights.device)
    step = weights / weights.sum(2, keepdim=True)
    reached = step @ step
    # Rows sum to 1, so what two have in common is 1 less half of what they differ by.
    common = 1 - torch.cdist(reached, reached, p=1) / 2
    return common / (2 - common)
