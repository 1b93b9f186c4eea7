"""ELViS (Suma et al., "ELViS: Efficient Visual Similarity from Local Descriptors that Generalizes
Across Domains", ICLR 2026): optimal transport between the locals of two images, then a vote of
each local by how well it is matched."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import ElvisConfig
from model.pairs.pair_reranker import PairReranker, Side

_ABSENT = -1e4
"""A similarity whose exponential is 0 beside any other, and whose gradient is a number."""


class ElvisReranker(PairReranker):
    """A logit is the sum of votes between 0 and 1, one a local of either image. In training a
    small network `g` maps the sum to a logit of being relevant, which the loss is made of."""

    config: ElvisConfig

    def __init__(self, config: ElvisConfig) -> None:
        super().__init__(config)
        self.f = nn.Sequential(
            nn.Linear(1, config.vote_dim),
            nn.LayerNorm(config.vote_dim, eps=1e-6),
            nn.GELU(),
            nn.Linear(config.vote_dim, 1),
        )
        first, last = nn.Linear(1, config.logit_dim), nn.Linear(config.logit_dim, 1)
        self.g = nn.Sequential(first, nn.GELU(), last)
        self.dust_bin = nn.Parameter(torch.tensor(1.0))
        self.dust_bin_mlp: nn.Module = SharedDustBin()
        if config.descriptor_dim is not None:
            self.dust_bin_mlp = nn.Sequential(
                nn.Linear(config.dim, config.dust_bin_dim),
                nn.GELU(),
                nn.Linear(config.dust_bin_dim, 1),
                nn.Tanh(),
            )
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        # Other than published: `g` rises at first, or training may settle on votes against
        # relevance, and starts near a logit of 0 with dozens of votes.
        with torch.no_grad():
            first.weight.abs_()
            last.weight.abs_().mul_(0.1)
            last.bias.fill_(-2.0)

    def numbers(self, rows: int) -> int:
        return (rows + 1) ** 2

    def compare(self, query: Side, gallery: Side) -> Tensor:
        matches = self.matches(query, gallery)
        best = torch.cat((matches.amax(2), matches.amax(1)), dim=1)
        votes = self.f(best.to(self.dust_bin.dtype).unsqueeze(-1)).squeeze(-1).sigmoid().float()
        votes = votes * torch.cat((query.mask, gallery.mask), dim=1)
        total: Tensor = votes.sum(1, keepdim=True)
        return (self.g(total) if self.training else total).squeeze(1)

    def matches(self, query: Side, gallery: Side) -> Tensor:
        """(p, n, m) float32, between 0 and 1: what share of a local is matched with which; 0 if
        one of them is not real."""
        first, second = F.normalize(query.locals, dim=-1), F.normalize(gallery.locals, dim=-1)
        real = query.mask.unsqueeze(2) & gallery.mask.unsqueeze(1)
        cosines = (first @ second.mT).float().masked_fill(~real, _ABSENT)
        query_dust, gallery_dust = (
            self.dust_bin_mlp(locals_).squeeze(-1).float().masked_fill(~row_mask, _ABSENT)
            for locals_, row_mask in ((first, query.row_mask), (second, gallery.row_mask))
        )
        corner = self.dust_bin.float().expand(len(first), 1, 1)
        scores = torch.cat(
            (
                torch.cat((cosines, query_dust.unsqueeze(2)), dim=2),
                torch.cat((gallery_dust.unsqueeze(1), corner), dim=2),
            ),
            dim=1,
        )
        transport = log_transport(
            scores * self.config.sharpness,
            query.row_mask,
            gallery.row_mask,
            self.config.iterations,
        )
        return transport[:, :-1, :-1].exp()


class SharedDustBin(nn.Module):
    """One learnt number for all locals, whatever their length: (…, d) to (…, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(0.5))

    def forward(self, locals_: Tensor) -> Tensor:
        return self.value.tanh().expand(*locals_.shape[:-1], 1)


def log_transport(scores: Tensor, rows: Tensor, columns: Tensor, iterations: int) -> Tensor:
    """Sinkhorn's iterations on `scores` (p, n + 1, m + 1), whose last row and column are dustbins;
    `rows` (p, n) and `columns` (p, m): which there are, each of mass 1, the dustbins of as much as
    there is on the other side. The logarithm of the transport plan, of the shape of `scores`.

    As in SuperGlue (Sarlin et al., CVPR 2020, section 3.2). So few iterations do not converge:
    padding that came with an image goes to the dustbin and slows them, so its rows count.
    """
    masses = [
        torch.cat((torch.zeros_like(own, dtype=scores.dtype), _log_count(other)), dim=1)
        for own, other in ((rows, columns), (columns, rows))
    ]
    real = [F.pad(own, (0, 1), value=True) for own in (rows, columns)]
    v = torch.zeros_like(masses[1])
    for _ in range(iterations):
        u = (masses[0] - (scores + v.unsqueeze(1)).logsumexp(2)) * real[0]
        v = (masses[1] - (scores + u.unsqueeze(2)).logsumexp(1)) * real[1]
    return scores + u.unsqueeze(2) + v.unsqueeze(1)


def _log_count(mask: Tensor) -> Tensor:
    """(p, n) to (p, 1) float32."""
    return mask.sum(1, keepdim=True).float().log()
