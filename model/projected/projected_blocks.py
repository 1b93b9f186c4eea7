"""The layers of the network. Tokens come as a grid (windows, images, slots, dim)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.blocks import BiasedAttention, BidirectionalMamba, GatedMLP
from model.projected.graph import GRAPHS
from model.projected.projected_config import ProjectedConfig
from model.projected.projected_tokens import SEP
from model.scan import Scan


class QueryAttention(nn.Module):
    """Every token attends to the tokens of its window's query (LOCORE's query global attention),
    with a bias per head of a learnt weight times the cosine of the two descriptors."""

    def __init__(self, config: ProjectedConfig) -> None:
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
        bias = bias.masked_fill(~mask[:, 0, None, None, :], -torch.inf)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        out: Tensor = self.out(y.transpose(1, 2).reshape(windows, images, slots, dim))
        return out


class ImageAttention(BiasedAttention):
    """Its bias is made of learnt weights times how similar two images are
    (`model.projected.graph`)."""

    def __init__(self, config: ProjectedConfig) -> None:
        super().__init__(config)
        self.likeness_weight = nn.Parameter(torch.zeros(GRAPHS, config.attention_heads))

    def bias(self, image_mask: Tensor, graphs: Tensor) -> Tensor:
        """(w, heads, i, i) of image_mask (w, i), graphs (w, GRAPHS, i, i)."""
        bias = torch.einsum("wgij,gh->whij", graphs, self.likeness_weight.float())
        return bias.masked_fill(~image_mask[:, None, None, :], -torch.inf)


class ImageLayer(nn.Module):
    def __init__(self, config: ProjectedConfig) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(config.dim) for _ in range(2))
        self.attention = ImageAttention(config)
        self.mlp = GatedMLP(config)

    def forward(self, x: Tensor, image_mask: Tensor, graphs: Tensor) -> Tensor:
        x = x + self.attention(self.norms[0](x), self.attention.bias(image_mask, graphs))
        result: Tensor = x + self.mlp(self.norms[1](x))
        return result


class Block(nn.Module):
    """Query attention, Mamba and an MLP on every token; then image layers on the images' SEP
    tokens. What an image gathers there reaches all of its tokens."""

    def __init__(self, config: ProjectedConfig) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(config.dim) for _ in range(3))
        self.query_attention = QueryAttention(config)
        self.mixer = BidirectionalMamba(config)
        self.mlp = GatedMLP(config)
        self.image_layers = nn.ModuleList(ImageLayer(config) for _ in range(config.image_layers))

    def forward(
        self,
        x: Tensor,
        mask: Tensor,
        order: Tensor,
        query_cosines: Tensor,
        graphs: Tensor,
        scan: Scan,
    ) -> Tensor:
        """x (w, i, s, dim), mask (w, i, s), query_cosines (w, i, s, s), graphs (w, GRAPHS, i, i);
        `order` (w, i): for every window a permutation, in which the mixer reads its images."""
        rows = torch.arange(len(order), device=order.device).unsqueeze(1)
        x = x + self.query_attention(self.norms[0](x), mask, query_cosines)
        mixed = self.mixer(self.norms[1](x)[rows, order], mask[rows, order], scan)
        x = x + mixed[rows, order.argsort(dim=1)]
        x = x + self.mlp(self.norms[2](x))
        image = before = x[:, :, SEP]
        for layer in self.image_layers:
            image = layer(image, mask[:, :, SEP], graphs)
        return x + (image - before).unsqueeze(2)
