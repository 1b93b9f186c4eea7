"""The layers of the Mamba re-ranker. Tokens come as a grid (windows, images, slots, dim)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import HybridConfig, MambaConfig
from model.mixers import LongformerAttention, NoMixer, WindowedAttention
from model.relations import RELATIONS
from model.scan import Scan
from model.tokens import IMAGE


class BiasedAttention(nn.Module):
    """The images of a window attend to each other, with a bias per head."""

    def __init__(self, config: HybridConfig) -> None:
        super().__init__()
        self.heads = config.attention_heads
        self.to_qkv = nn.Linear(config.dim, 3 * config.dim)
        self.out = nn.Linear(config.dim, config.dim)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """x (w, i, dim), bias (w, heads, i, i)."""
        windows, images, dim = x.shape
        q, k, v = self.to_qkv(x).view(windows, images, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        out: Tensor = self.out(y.transpose(1, 2).reshape(windows, images, dim))
        return out


class ImageAttention(BiasedAttention):
    """The bias is a sum of the relations of two images with learnt weights: similar images share
    evidence, as in query expansion and diffusion."""

    def __init__(self, config: MambaConfig) -> None:
        super().__init__(config)
        self.relation_weight = nn.Parameter(
            torch.linspace(0.0, 2.0, config.attention_heads).unsqueeze(0).repeat(len(RELATIONS), 1)
            / len(RELATIONS)
        )


class ImageLayer(nn.Module):
    def __init__(self, config: MambaConfig) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(config.dim) for _ in range(2))
        self.attention = ImageAttention(config)
        self.mlp = GatedMLP(config)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        x = x + self.attention(self.norms[0](x), bias)
        result: Tensor = x + self.mlp(self.norms[1](x))
        return result


class BidirectionalMamba(nn.Module):
    """A Mamba-2 mixer over the whole list, both ways, the projections shared as in Hydra
    (Hwang et al., NeurIPS 2024): a non-causal depthwise convolution within each image, one scan
    forward and one backward, a gated norm.

    At padded slots the convolution reads 0 and the scans' step is 0, so a score does not depend on
    padding.
    """

    def __init__(self, config: HybridConfig) -> None:
        super().__init__()
        self.inner = config.dim * config.expand
        self.heads = self.inner // config.scan_head_dim
        self.state = config.scan_state
        convolved = self.inner + 2 * self.state
        self.project = nn.Linear(config.dim, self.inner + convolved + 2 * self.heads, bias=False)
        self.convolution = nn.Conv2d(
            convolved,
            convolved,
            (1, config.conv_width),
            padding=(0, config.conv_width // 2),
            groups=convolved,
        )
        # Mamba-2's own initial steps (log-uniform in 0.001 … 0.1) and decays (uniform in 1 … 16).
        step = torch.exp(
            torch.rand(2 * self.heads) * (math.log(0.1) - math.log(0.001)) + math.log(0.001)
        )
        self.step_bias = nn.Parameter(step + torch.log(-torch.expm1(-step)))
        self.log_decay = nn.Parameter(torch.empty(self.heads).uniform_(1, 16).log())
        self.skip = nn.Parameter(torch.ones(self.heads))
        self.norm = nn.LayerNorm(self.inner)
        self.out = nn.Linear(self.inner, config.dim, bias=False)

    def forward(self, x: Tensor, mask: Tensor, scan: Scan) -> Tensor:
        """x (w, i, s, dim), mask (w, i, s)."""
        windows, images, slots, _ = x.shape
        valid = mask.unsqueeze(-1)
        gate, xbc, steps = (self.project(x) * valid).split(
            (self.inner, self.inner + 2 * self.state, 2 * self.heads), dim=-1
        )
        # As an image one pixel high, with channels last: PyTorch's one-dimensional depthwise
        # convolution takes six times as long on a CPU.
        rows = xbc.flatten(0, 1).transpose(1, 2).unsqueeze(2)
        xbc = self.convolution(rows).squeeze(2).transpose(1, 2)
        xbc = F.silu(xbc).reshape(windows, images * slots, -1)
        v, b, c = xbc.split((self.inner, self.state, self.state), dim=-1)
        v = v.unflatten(-1, (self.heads, -1))
        steps = F.softplus(steps.float() + self.step_bias) * valid
        forward, backward = steps.flatten(1, 2).chunk(2, dim=-1)
        decay = -self.log_decay.float().exp()
        y = scan(v, forward, backward, decay, b, c)
        y = y + self.skip.unsqueeze(-1) * v
        y = y.to(x.dtype).reshape(windows, images, slots, self.inner)
        out: Tensor = self.out(self.norm(y * F.silu(gate)))
        return out


class GatedMLP(nn.Module):
    """SwiGLU (Shazeer, 2020)."""

    def __init__(self, config: HybridConfig) -> None:
        super().__init__()
        hidden = int(config.dim * config.mlp_ratio)
        self.into = nn.Linear(config.dim, 2 * hidden)
        self.out = nn.Linear(hidden, config.dim)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.into(x).chunk(2, dim=-1)
        out: Tensor = self.out(value * F.silu(gate))
        return out


class Block(nn.Module):
    """The mixer and an MLP on every token; then an image's matches are pooled into its own token,
    and image layers work on the images' own tokens. The change of the own token is added to all
    tokens of the image."""

    def __init__(self, config: MambaConfig) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(config.dim) for _ in range(3))
        self.mixer = _mixer(config)
        self.mlp = GatedMLP(config)
        self.pool = nn.Linear(2 * config.dim, config.dim)
        self.image_layers = nn.ModuleList(ImageLayer(config) for _ in range(config.image_layers))

    def forward(
        self,
        x: Tensor,
        mask: Tensor,
        order: Tensor,
        relations: Tensor,
        trust: Tensor,
        scan: Scan,
    ) -> Tensor:
        """x (w, i, s, dim), mask (w, i, s), relations (w, r, i, i), their trust (w, r); order
        (w, i): the permutation in which the mixer reads the images of a window."""
        mixed = self.mixer(_ordered(self.norms[0](x), order), _ordered(mask, order), scan)
        x = x + _ordered(mixed, order.argsort(dim=1))
        x = x + self.mlp(self.norms[1](x))
        image = x[:, :, IMAGE] + self.pool(_pooled(self.norms[2](x), mask))
        biases = self._biases(relations, trust, mask[:, :, IMAGE])
        for layer, bias in zip(self.image_layers, biases, strict=True):
            image = layer(image, bias)
        result: Tensor = x + (image - x[:, :, IMAGE]).unsqueeze(2)
        return result

    def _biases(self, relations: Tensor, trust: Tensor, image_mask: Tensor) -> tuple[Tensor, ...]:
        """(w, heads, i, i) for every image layer, computed in one product."""
        weights: list[Tensor] = [
            layer.attention.relation_weight
            for layer in self.image_layers
            if isinstance(layer, ImageLayer)
        ]
        if not weights:
            return ()
        heads = torch.cat(weights, 1).mT * trust.unsqueeze(1)
        biases: Tensor = heads.to(relations.dtype) @ relations.flatten(2)
        hidden: Tensor = biases.unflatten(2, relations.shape[2:]).masked_fill_(
            ~image_mask[:, None, None, :], -torch.inf
        )
        return tuple(hidden.chunk(len(weights), dim=1))


def _ordered(x: Tensor, order: Tensor) -> Tensor:
    """x (w, i, …), with its images permuted by `order` (w, i)."""
    windows, images = order.shape
    rows = order + images * torch.arange(windows, device=order.device).unsqueeze(1)
    return x.flatten(0, 1).index_select(0, rows.flatten()).view_as(x)


def _pooled(x: Tensor, mask: Tensor) -> Tensor:
    """(w, i, s, dim) to (w, i, 2 dim): mean and maximum over the slots of `mask`."""
    valid = mask.unsqueeze(-1)
    mean = (x * valid).sum(2) / valid.sum(2).clamp(min=1)
    maximum = x.masked_fill(~valid, -1e4).amax(2) * valid.any(2)
    return torch.cat((mean, maximum), dim=-1)


def _mixer(config: MambaConfig) -> nn.Module:
    if config.mixer == "none":
        return NoMixer()
    if config.mixer == "mamba":
        return BidirectionalMamba(config)
    attention = WindowedAttention if config.mixer == "windowed-attention" else LongformerAttention
    return attention(config.dim, config.attention_heads, 1 + config.matches_per_image)
