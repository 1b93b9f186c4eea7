"""A pairwise transformer: query and image in one sequence, one pair at a time, of RRT's layout and
size, trained as ours is (Tan et al., "Instance-level Image Retrieval using Reranking
Transformers", ICCV 2021; AMES, Suma et al., ECCV 2024, is of the same kind)."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import ModelConfig
from model.reranker import ListReranker
from model.window_batch import WindowBatch

_DIM, _DEPTH, _HEADS, _HIDDEN = 128, 6, 4, 1024
"""RRT's own: 2.2 million parameters."""


class PairwiseConfig(ModelConfig):
    """The sizes of the descriptors that it projects."""

    descriptor_dim: int = Field(ge=1)
    global_dim: int = Field(ge=1)
    scale_levels: int = Field(8, ge=1)


class PairwiseReranker(ListReranker):
    """`[CLS] [query: global, locals] [SEP] [image: global, locals]`; the logit is read off CLS."""

    config: PairwiseConfig

    def __init__(self, config: PairwiseConfig) -> None:
        super().__init__(config)
        self.local_projection = nn.Linear(config.descriptor_dim, _DIM)
        self.global_projection = nn.Linear(config.global_dim, _DIM)
        self.scale = nn.Embedding(config.scale_levels, _DIM)
        self.side = nn.Embedding(2, _DIM)
        self.marks = nn.Parameter(torch.randn(2, _DIM) * 0.02)
        layer = nn.TransformerEncoderLayer(
            _DIM, _HEADS, _HIDDEN, dropout=0.0, batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, _DEPTH, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(_DIM)
        self.head = nn.Linear(_DIM, 1)

    def forward(self, batch: WindowBatch) -> tuple[Tensor, Tensor]:
        locals_ = F.normalize(batch.locals, dim=-1) * batch.locals.shape[-1] ** 0.5
        globals_ = F.normalize(batch.globals, dim=-1) * batch.globals.shape[-1] ** 0.5
        local = self.local_projection(locals_) + self.scale(
            batch.scales.clamp(max=self.config.scale_levels - 1)
        )
        tokens = torch.cat((self.global_projection(globals_).unsqueeze(2), local), dim=2)
        mask = torch.cat((batch.has_global.unsqueeze(2), batch.local_mask), dim=2)

        windows, images, slots, dim = tokens.shape
        pairs = windows * (images - 1)
        query = (tokens[:, :1] + self.side.weight[0]).expand(-1, images - 1, -1, -1)
        gallery = tokens[:, 1:] + self.side.weight[1]
        cls, separator = self.marks.expand(pairs, 2, dim).split(1, dim=1)
        rows = (query.reshape(pairs, slots, dim), gallery.reshape(pairs, slots, dim))
        sequence = torch.cat((cls, rows[0], separator, rows[1]), dim=1)
        query_mask = mask[:, :1].expand(-1, images - 1, -1).reshape(pairs, slots)
        mark = torch.ones(pairs, 1, dtype=torch.bool, device=mask.device)
        valid = torch.cat((mark, query_mask, mark, mask[:, 1:].reshape(pairs, slots)), dim=1)
        hidden = self.encoder(sequence, src_key_padding_mask=~valid)
        logits = self.head(self.norm(hidden[:, 0])).view(windows, images - 1, 1)
        return logits.float(), batch.present.unsqueeze(2)
