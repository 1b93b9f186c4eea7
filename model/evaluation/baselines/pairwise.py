"""A pairwise transformer: query and image in one sequence, one pair at a time, of RRT's layout and
size, trained as ours is (Tan et al., "Instance-level Image Retrieval using Reranking
Transformers", ICCV 2021; AMES, Suma et al., ECCV 2024, is of the same kind)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.batch import WindowBatch
from model.config import MambaConfig
from model.reranker import ListReranker, aggregate
from model.tokens import FIRST_LOCAL

_DIM, _DEPTH, _HEADS, _HIDDEN = 128, 6, 4, 1024
"""RRT's own: 2.2 million parameters."""


class PairwiseReranker(ListReranker):
    """`[CLS] [query: global, locals] [SEP] [image: global, locals]`; the logit is read off CLS."""

    config: MambaConfig

    def __init__(self, config: MambaConfig) -> None:
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

    def image_scores(self, logits: Tensor, mask: Tensor) -> Tensor:
        return aggregate(logits, mask, "sep")

    def forward(self, batch: WindowBatch) -> tuple[Tensor, Tensor]:
        locals_ = F.normalize(batch.locals, dim=-1) * batch.locals.shape[-1] ** 0.5
        globals_ = F.normalize(batch.globals, dim=-1) * batch.globals.shape[-1] ** 0.5
        local = self.local_projection(locals_) + self.scale(batch.scales)
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
        # One logit, in both of the slots that an aggregation may ask for.
        both = (windows, images - 1, FIRST_LOCAL)
        return logits.float().expand(both), batch.image_mask[:, 1:].unsqueeze(2).expand(both)
