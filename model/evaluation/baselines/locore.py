"""LOCORE's architecture, a Longformer over the tokens of the whole list (Xiao et al., CVPR 2025),
at our size and trained as ours is."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LongformerConfig, LongformerModel

from model.batch import WindowBatch
from model.config import ModelConfig
from model.reranker import ListReranker

_WINDOW = 512
_LONGEST = 101
_TO_HIDDEN = 4


class LocoreReranker(ListReranker):
    """Tokens `[global] [locals] [SEP]` an image: projected descriptors with embeddings of scale
    and role, none of our correlation features. Every token attends to 512 around it; those of the
    query attend to all and are attended to by all. Positions are absolute, and an image's are the
    same however short the images before it are."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        dim = config.dim
        self.slots = config.descriptors_per_image + 2
        self.local_projection = nn.Linear(config.descriptor_dim, dim)
        self.global_projection = nn.Linear(config.global_dim, dim)
        self.scale = nn.Embedding(config.scale_levels, dim)
        self.separator = nn.Parameter(torch.randn(dim) * 0.02)
        self.longformer = LongformerModel(
            LongformerConfig(
                vocab_size=2,
                hidden_size=dim,
                num_hidden_layers=config.depth,
                num_attention_heads=config.attention_heads,
                intermediate_size=_TO_HIDDEN * dim,
                attention_window=_WINDOW,
                max_position_embeddings=_LONGEST * self.slots + 2,
                type_vocab_size=2,
                hidden_dropout_prob=0.0,
                attention_probs_dropout_prob=0.0,
            ),
            add_pooling_layer=False,
        )
        self.head = nn.Linear(dim, 1)

    def forward(self, batch: WindowBatch) -> tuple[Tensor, Tensor]:
        locals_ = F.normalize(batch.locals, dim=-1) * batch.locals.shape[-1] ** 0.5
        globals_ = F.normalize(batch.globals, dim=-1) * batch.globals.shape[-1] ** 0.5
        local = self.local_projection(locals_) + self.scale(batch.scales)
        global_ = self.global_projection(globals_).unsqueeze(2)
        separator = self.separator.expand_as(global_)
        tokens = torch.cat((global_, local, separator), dim=2)
        image = batch.image_mask.unsqueeze(2)
        known = batch.has_global.unsqueeze(2) & image
        mask = torch.cat((known, batch.local_mask, image), dim=2)

        windows, images, slots, _ = tokens.shape
        role = torch.ones(windows, images, slots, dtype=torch.long, device=tokens.device)
        role[:, 0] = 0
        # An image's separator has its last position, whatever number of locals comes before.
        slot = torch.arange(slots, device=tokens.device)
        slot[-1] = self.slots - 1
        first = torch.arange(images, device=tokens.device).unsqueeze(1) * self.slots
        position = (first + slot).expand(windows, images, slots) + 2
        if self.training and images < _LONGEST:
            # Lists are shorter in training: they start anywhere, so that every position is learnt.
            position = position + self.slots * int(torch.randint(_LONGEST - images + 1, ()))
        hidden = self.longformer(
            inputs_embeds=tokens.flatten(1, 2),
            attention_mask=mask.flatten(1).long(),
            global_attention_mask=((role == 0) & mask).flatten(1).long(),
            token_type_ids=role.flatten(1),
            position_ids=position.flatten(1),
        ).last_hidden_state
        logits = self.head(hidden.unflatten(1, (images, slots))[:, 1:]).squeeze(-1)
        # SEP first, where `aggregate` expects it.
        return logits.float().roll(1, -1), mask[:, 1:].roll(1, -1)
