"""What could stand where our blocks have Mamba, all else equal: to read off what Mamba brings."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import LONGEST_LIST
from model.scan import Scan

SIDE = 256
"""Tokens on each side that a token attends to, as in LOCORE's Longformer."""


class WindowedAttention(nn.Module):
    """Self-attention over the tokens of the whole list, with absolute positions: each sees those
    up to `SIDE` places away."""

    def __init__(self, dim: int, heads: int, slots: int) -> None:
        super().__init__()
        self.heads = heads
        self.slots = slots
        self.position = nn.Embedding(LONGEST_LIST * slots, dim)
        nn.init.normal_(self.position.weight, std=0.02)
        self.to_qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor, scan: Scan) -> Tensor:  # noqa: ARG002
        """x (w, i, s, dim), mask (w, i, s)."""
        given = x.shape[2]
        # Always as many slots: how far the list is padded must not move a token out of sight.
        x = F.pad(x, (0, 0, 0, self.slots - given))
        mask = F.pad(mask, (0, self.slots - given))
        windows, images, slots, dim = x.shape
        start = self._start(images)
        first = (start + torch.arange(images, device=x.device).unsqueeze(1)) * self.slots
        x = x + self.position(first + torch.arange(slots, device=x.device))
        qkv = self.to_qkv(x.flatten(1, 2)).view(windows, images * slots, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        y = windowed_attention(q, k, v, mask.flatten(1), SIDE)
        out: Tensor = self.out(y.transpose(1, 2).reshape(windows, images, slots, dim))
        return out[:, :, :given]

    def _start(self, images: int) -> int:
        """Lists are shorter in training: they start anywhere, so that every position is learnt."""
        if not self.training or images >= LONGEST_LIST:
            return 0
        return int(torch.randint(LONGEST_LIST - images + 1, ()))


def windowed_attention(q: Tensor, k: Tensor, v: Tensor, valid: Tensor, side: int) -> Tensor:
    """q, k, v (b, h, l, d), valid (b, l): every place attends to the valid ones that are at most
    `side` away. Blocks of `side` queries attend to their own block and the two beside it."""
    length = q.shape[2]
    padding = -length % side
    q = F.pad(q, (0, 0, 0, padding))
    blocks = q.shape[2] // side

    def around(t: Tensor) -> Tensor:
        """(b, h, blocks, 3 side, d)"""
        wide = F.pad(t, (0, 0, side, padding + side))
        return wide.unfold(2, 3 * side, side).transpose(-1, -2)

    key = torch.arange(3 * side, device=q.device) - side
    near = (key - torch.arange(side, device=q.device).unsqueeze(1)).abs() <= side
    seen = F.pad(valid, (side, padding + side)).unfold(1, 3 * side, side)
    allowed = near & seen[:, None, :, None, :]
    # A place that sees nothing is padding itself; attending to all it stays finite.
    allowed = allowed | ~allowed.any(-1, keepdim=True)
    y = F.scaled_dot_product_attention(
        q.unflatten(2, (blocks, side)), around(k), around(v), attn_mask=allowed
    )
    return y.flatten(2, 3)[:, :, :length]


class NoMixer(nn.Module):
    """Nothing: images see each other in the layers between images alone."""

    def forward(self, x: Tensor, mask: Tensor, scan: Scan) -> Tensor:  # noqa: ARG002
        return torch.zeros_like(x)
