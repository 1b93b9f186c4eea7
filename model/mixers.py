"""Alternatives to Mamba in our blocks, all else equal, to measure what Mamba adds."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import MAX_LIST
from model.scan import Scan

SIDE = 256
"""Tokens on each side that a token attends to, as in LOCORE's Longformer."""
LONGFORMER_WINDOW = 128


class Positions(nn.Module):
    """Absolute positions of the tokens of a list, learnt. Lists are shorter in training: they start
    anywhere, so that every position is learnt."""

    def __init__(self, dim: int, slots: int) -> None:
        super().__init__()
        self.slots = slots
        self.embedding = nn.Embedding(MAX_LIST * slots, dim)
        nn.init.normal_(self.embedding.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """x (w, i, s, dim), its positions added."""
        images, slots = x.shape[1:3]
        start = 0
        if self.training and images < MAX_LIST:
            start = int(torch.randint(MAX_LIST - images + 1, ()))
        first = (start + torch.arange(images, device=x.device).unsqueeze(1)) * self.slots
        placed: Tensor = x + self.embedding(first + torch.arange(slots, device=x.device))
        return placed

    def filled(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Pads to all slots of an image: the padding of the list must not change which tokens
        attend to each other."""
        missing = self.slots - x.shape[2]
        return F.pad(x, (0, 0, 0, missing)), F.pad(mask, (0, missing))


class WindowedAttention(nn.Module):
    """Self-attention over the tokens of the whole list, with absolute positions: each sees those
    up to `SIDE` places away."""

    def __init__(self, dim: int, heads: int, slots: int) -> None:
        super().__init__()
        self.heads = heads
        self.positions = Positions(dim, slots)
        self.to_qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor, scan: Scan) -> Tensor:  # noqa: ARG002
        """x (w, i, s, dim), mask (w, i, s)."""
        slots_before = x.shape[2]
        x, mask = self.positions.filled(x, mask)
        windows, images, slots, dim = x.shape
        qkv = self.to_qkv(self.positions(x).flatten(1, 2)).view(
            windows, images * slots, 3, self.heads, -1
        )
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        y = windowed_attention(q, k, v, mask.flatten(1), SIDE)
        out: Tensor = self.out(y.transpose(1, 2).reshape(windows, images, slots, dim))
        return out[:, :, :slots_before]


class LongformerAttention(nn.Module):
    """The attention of LOCORE's own backbone (transformers' Longformer) over our tokens: each sees
    those up to half a window away, and the images' own tokens see all and are seen by all."""

    def __init__(self, dim: int, heads: int, slots: int) -> None:
        super().__init__()
        from transformers import LongformerConfig
        from transformers.models.longformer.modeling_longformer import LongformerSelfAttention

        self.positions = Positions(dim, slots)
        self.attention = LongformerSelfAttention(
            LongformerConfig(
                hidden_size=dim,
                num_attention_heads=heads,
                attention_window=[LONGFORMER_WINDOW],
                attention_probs_dropout_prob=0.0,
            ),
            layer_id=0,
        )
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor, scan: Scan) -> Tensor:  # noqa: ARG002
        """x (w, i, s, dim), mask (w, i, s)."""
        slots_before = x.shape[2]
        x, mask = self.positions.filled(x, mask)
        windows, images, slots, dim = x.shape
        global_tokens = torch.zeros_like(mask)
        global_tokens[:, :, 0] = True
        padding = -images * slots % LONGFORMER_WINDOW
        tokens = F.pad(self.positions(x).flatten(1, 2), (0, 0, 0, padding))
        # The convention of Longformer's attention: below 0 padding, above 0 tokens that see all.
        kind = F.pad((global_tokens & mask).flatten(1).to(x.dtype), (0, padding))
        kind = kind.masked_fill(~F.pad(mask.flatten(1), (0, padding)), -1.0)
        y = self.attention(
            tokens,
            attention_mask=10_000 * kind,
            is_index_masked=kind < 0,
            is_index_global_attn=kind > 0,
            is_global_attn=True,
        )[0]
        out: Tensor = self.out(y[:, : images * slots].view(windows, images, slots, dim))
        return out[:, :, :slots_before]


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
    visible = F.pad(valid, (side, padding + side)).unfold(1, 3 * side, side)
    allowed = near & visible[:, None, :, None, :]
    # A place without valid neighbours is padding; it attends to all, so that it stays finite.
    allowed = allowed | ~allowed.any(-1, keepdim=True)
    y = F.scaled_dot_product_attention(
        q.unflatten(2, (blocks, side)), around(k), around(v), attn_mask=allowed
    )
    return y.flatten(2, 3)[:, :, :length]


class NoMixer(nn.Module):
    """No mixer: images attend to each other in the layers between images alone."""

    def forward(self, x: Tensor, mask: Tensor, scan: Scan) -> Tensor:  # noqa: ARG002
        return torch.zeros_like(x)
