"""AMES (Suma et al., "AMES: Asymmetric and Memory-Efficient Similarity Estimation for
Instance-level Retrieval", ECCV 2024): a transformer over the locals of two images, whose layers
attend within an image and then across."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import AmesConfig
from model.pairs.pair_reranker import PairReranker, Side


class _Layer(nn.Module):
    """Attention within the images, across them, and an MLP, each followed by its norm."""

    def __init__(self, config: AmesConfig) -> None:
        super().__init__()
        dim, heads = config.dim, config.attention_heads
        self.self_attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.cross_attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.linear1 = nn.Linear(dim, config.mlp_dim)
        self.linear2 = nn.Linear(config.mlp_dim, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.norm3 = nn.LayerNorm(dim)

    def forward(self, x: Tensor, within: Tensor, across: Tensor, padding: Tensor) -> Tensor:
        """x (p, t, dim); `within` and `across` (t, t) and `padding` (p, t): what is not read."""
        x = self.norm1(x + _attended(self.self_attn, x, within, padding))
        x = self.norm2(x + _attended(self.cross_attn, x, across, padding))
        normed: Tensor = self.norm3(x + self.linear2(F.relu(self.linear1(x))))
        return normed


def _attended(attention: nn.MultiheadAttention, x: Tensor, hidden: Tensor, pad: Tensor) -> Tensor:
    attended: Tensor = attention(
        x, x, x, attn_mask=hidden, key_padding_mask=pad, need_weights=False
    )[0]
    return attended


class _Layers(nn.Module):
    def __init__(self, config: AmesConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.depth))

    def forward(self, x: Tensor, within: Tensor, across: Tensor, padding: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, within, across, padding)
        return x


class AmesReranker(PairReranker):
    """`[token] [query's locals] [image's locals]`, without positions; the logit is read off the
    token, which attends to all and is attended to by all."""

    config: AmesConfig

    def __init__(self, config: AmesConfig) -> None:
        super().__init__(config)
        self.mtc_token = nn.Parameter(torch.randn(config.dim) * 0.02)
        self.decoder = _Layers(config)
        self.classifier = nn.Linear(config.dim, 1)

    def numbers(self, rows: int) -> int:
        return self.config.attention_heads * (2 * rows + 1) ** 2

    def compare(self, query: Side, gallery: Side) -> Tensor:
        second = gallery.locals
        if self.config.bits is None and not self.training:
            # As published, where a gallery is kept so.
            second = second.half().to(second.dtype)
        token = self.mtc_token.expand(len(second), 1, -1)
        x = torch.cat((token, query.locals, second), dim=1)
        padding = ~F.pad(torch.cat((query.mask, gallery.mask), dim=1), (1, 0), value=True)
        # 0 is the token, which is of both images.
        side = torch.zeros(x.shape[1], dtype=torch.int64, device=x.device)
        side[1 : 1 + query.locals.shape[1]] = 1
        side[1 + query.locals.shape[1] :] = 2
        local = (side.unsqueeze(0) > 0) & (side.unsqueeze(1) > 0)
        same = side.unsqueeze(0) == side.unsqueeze(1)
        x = self.decoder(x, local & ~same, local & same, padding)
        logits: Tensor = self.classifier(x[:, 0]).squeeze(1)
        return logits
