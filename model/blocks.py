"""The layers of the Mamba re-ranker. Tokens come as a grid (windows, images, slots, dim)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import ModelConfig
from model.scan import Scan
from model.tokens import SEP


class QueryAttention(nn.Module):
    """Every token attends to the tokens of its window's query (LOCORE's query global attention).

    A bias per head of a learnt weight times the cosine of the two raw descriptors points a local
    at its matches from the first step of training.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.attention_heads
        self.to_query = nn.Linear(config.dim, config.dim)
        self.to_key_value = nn.Linear(config.dim, 2 * config.dim)
        self.out = nn.Linear(config.dim, config.dim)
        self.cosine_weight = nn.Parameter(torch.linspace(0.0, 10.0, config.attention_heads))

    def forward(self, x: Tensor, mask: Tensor, cosines: Tensor) -> Tensor:
        """x (w, i, s, dim), mask (w, i, s), cosines (w, i, s, s) with the query's tokens."""
        windows, images, slots, dim = x.shape
        q = self.to_query(x).view(windows, images * slots, self.heads, -1).transpose(1, 2)
        key_value = self.to_key_value(x[:, 0]).view(windows, slots, 2, self.heads, -1)
        k, v = key_value.permute(2, 0, 3, 1, 4)
        bias = self.cosine_weight[:, None, None] * cosines.flatten(1, 2).unsqueeze(1)
        bias = bias.masked_fill(~mask[:, 0, None, None, :], float("-inf"))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        out: Tensor = self.out(y.transpose(1, 2).reshape(windows, images, slots, dim))
        return out


class ImageAttention(nn.Module):
    """The images' SEP tokens attend to each other, with a bias per head of a learnt weight times
    the cosine of the images' globals: images that look alike lend each other evidence, as query
    expansion and diffusion do by hand. What an image gathers reaches all of its tokens."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.attention_heads
        self.to_qkv = nn.Linear(config.dim, 3 * config.dim)
        self.out = nn.Linear(config.dim, config.dim)
        self.cosine_weight = nn.Parameter(torch.linspace(0.0, 10.0, config.attention_heads))

    def forward(self, x: Tensor, image_mask: Tensor, cosines: Tensor) -> Tensor:
        """x (w, i, s, dim), image_mask (w, i), cosines (w, i, i); returns (w, i, 1, dim)."""
        windows, images, _, dim = x.shape
        qkv = self.to_qkv(x[:, :, SEP]).view(windows, images, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        bias = self.cosine_weight[:, None, None] * cosines.unsqueeze(1)
        bias = bias.masked_fill(~image_mask[:, None, None, :], float("-inf"))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        out: Tensor = self.out(y.transpose(1, 2).reshape(windows, images, dim))
        return out.unsqueeze(2)


class BidirectionalMamba(nn.Module):
    """A Mamba-2 mixer over the whole list, both ways, the projections shared as in Hydra
    (Hwang et al., NeurIPS 2024): a non-causal depthwise convolution within each image, one scan
    forward and one backward, a gated norm.

    At padded slots the convolution reads 0 and the scans' step is 0, so a score does not depend
    on how far an image, or a window, was padded.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.inner = config.dim * config.expand
        self.heads = self.inner // config.scan_head_dim
        self.state = config.scan_state
        convolved = self.inner + 2 * self.state
        self.project = nn.Linear(config.dim, self.inner + convolved + 2 * self.heads, bias=False)
        self.convolution = nn.Conv1d(
            convolved,
            convolved,
            config.conv_width,
            padding=config.conv_width // 2,
            groups=convolved,
        )
        # Mamba-2's own initial steps (log-uniform in 0.001 … 0.1) and decays (uniform in 1 … 16).
        step = torch.exp(
            torch.rand(2 * self.heads) * (math.log(0.1) - math.log(0.001)) + math.log(0.001)
        )
        self.step_bias = nn.Parameter(step + torch.log(-torch.expm1(-step)))
        self.log_decay = nn.Parameter(torch.empty(self.heads).uniform_(1, 16).log())
        self.skip = nn.Parameter(torch.ones(self.heads))
        self.norm = nn.RMSNorm(self.inner, eps=1e-5)
        self.out = nn.Linear(self.inner, config.dim, bias=False)

    def forward(self, x: Tensor, mask: Tensor, scan: Scan) -> Tensor:
        """x (w, i, s, dim), mask (w, i, s)."""
        windows, images, slots, _ = x.shape
        valid = mask.unsqueeze(-1)
        gate, xbc, steps = (self.project(x) * valid).split(
            (self.inner, self.inner + 2 * self.state, 2 * self.heads), dim=-1
        )
        xbc = self.convolution(xbc.flatten(0, 1).transpose(1, 2)).transpose(1, 2)
        xbc = F.silu(xbc).reshape(windows, images * slots, -1)
        v, b, c = xbc.split((self.inner, self.state, self.state), dim=-1)
        v = v.unflatten(-1, (self.heads, -1))
        steps = F.softplus(steps.float() + self.step_bias) * valid
        forward, backward = steps.flatten(1, 2).chunk(2, dim=-1)
        decay = -self.log_decay.float().exp()
        y = scan(v, forward, decay, b, c, reverse=False)
        y = y + scan(v, backward, decay, b, c, reverse=True)
        y = y + self.skip.unsqueeze(-1) * v
        y = y.to(x.dtype).reshape(windows, images, slots, self.inner)
        out: Tensor = self.out(self.norm(y * F.silu(gate)))
        return out


class GatedMLP(nn.Module):
    """SwiGLU (Shazeer, 2020)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden = int(config.dim * config.mlp_ratio)
        self.into = nn.Linear(config.dim, 2 * hidden)
        self.out = nn.Linear(hidden, config.dim)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.into(x).chunk(2, dim=-1)
        out: Tensor = self.out(value * F.silu(gate))
        return out


class Block(nn.Module):
    """Query attention, Mamba, image attention, MLP; each on a normed input, added to its own."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.RMSNorm(config.dim, eps=1e-5) for _ in range(4))
        self.query_attention = QueryAttention(config)
        self.mamba = BidirectionalMamba(config)
        self.image_attention = ImageAttention(config)
        self.mlp = GatedMLP(config)

    def forward(
        self,
        x: Tensor,
        mask: Tensor,
        query_cosines: Tensor,
        image_cosines: Tensor,
        scan: Scan,
    ) -> Tensor:
        """x (w, i, s, dim), mask (w, i, s), query_cosines (w, i, s, s), image_cosines (w, i, i)."""
        x = x + self.query_attention(self.norms[0](x), mask, query_cosines)
        x = x + self.mamba(self.norms[1](x), mask, scan)
        x = x + self.image_attention(self.norms[2](x), mask[:, :, SEP], image_cosines)
        x = x + self.mlp(self.norms[3](x))
        return x
