"""LOCORE's published re-ranker: a Longformer over the tokens of the whole list (Xiao et al.,
"LOCORE: Image Re-ranking with Long-Context Sequence Modeling", CVPR 2025).

Modules have the names that the published checkpoints give them, so that those load unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import LongformerConfig, Scoring
from model.reranker import ListReranker
from model.window_batch import WindowBatch, collate
from model.windows import Window

_FIRST_POSITION = 2
"""RoBERTa's numbering of positions: 0 is not used, 1 is for padding."""


class _Longformer(transformers.LongformerModel):  # type: ignore[misc]
    """Without a vocabulary: what LOCORE keeps of one are the embeddings of [SEP] and [PAD]."""

    def __init__(self, config: transformers.LongformerConfig) -> None:
        super().__init__(config, add_pooling_layer=False)
        del self.embeddings.word_embeddings
        self.sep_embedding = nn.Parameter(torch.randn(config.hidden_size) * 0.02)
        # Only for loading and saving checkpoints; padding is masked.
        padding = torch.zeros(config.hidden_size)
        self.pad_embedding = nn.Parameter(padding, requires_grad=False)

    def get_input_embeddings(self) -> nn.Module:
        """What transformers makes require gradients where activations are recomputed."""
        embeddings: nn.Module = self.embeddings
        return embeddings


class _LanguageModel(nn.Module):
    def __init__(self, config: LongformerConfig) -> None:
        super().__init__()
        self.longformer = _Longformer(
            transformers.LongformerConfig(
                vocab_size=_FIRST_POSITION,
                hidden_size=config.dim,
                num_hidden_layers=config.depth,
                num_attention_heads=config.attention_heads,
                intermediate_size=config.mlp_dim,
                attention_window=[config.attention_window] * config.depth,
                max_position_embeddings=config.positions,
                type_vocab_size=1,
                layer_norm_eps=1e-5,
                bos_token_id=None,
                eos_token_id=None,
                sep_token_id=None,
            )
        )
        self.dropout = nn.Dropout(self.longformer.config.hidden_dropout_prob)
        self.classifier = nn.Linear(config.dim, 2)


class LongformerReranker(ListReranker):
    """Tokens `[global] [locals] [SEP]` an image, the query first. A token attends to a window
    around it; the query's tokens and every image's SEP attend to all and are attended to by all
    (the paper names the query alone; the published code marks the separators too). Positions are
    absolute, an image's the same however few locals it and the images before it have.
    """

    config: LongformerConfig

    def __init__(self, config: LongformerConfig) -> None:
        super().__init__(config)
        self.local_to_lm: nn.Module = nn.Identity()
        self.global_to_lm: nn.Module = nn.Identity()
        if config.project_locals:
            self.local_to_lm = nn.Linear(config.descriptor_dim, config.dim)
        if config.project_global:
            self.global_to_lm = nn.Linear(config.global_dim, config.dim)
        self.scale_encoder = nn.Embedding(config.scale_levels, config.dim)
        self.language_model = _LanguageModel(config)

    def collate(self, windows: Sequence[Window]) -> WindowBatch:
        batch = collate(
            windows,
            descriptors_per_image=self.config.descriptors_per_image,
            keep_places=True,
            with_globals=self.config.global_dim > 0,
        )
        return replace(batch, scales=batch.scales.clamp(max=self.config.scale_levels - 1))

    def recompute_in_backward(self) -> None:
        """Computes activations again for the gradients: less memory, more time."""
        longformer = self.language_model.longformer
        longformer.gradient_checkpointing_enable({"use_reentrant": False})

    def forward(self, batch: WindowBatch) -> tuple[Tensor, Tensor]:
        """Log-odds of being relevant, and which tokens are real: both (w, g, slots)."""
        classes, mask = self._classes(batch)
        return classes[..., 1] - classes[..., 0], mask

    def image_logits(self, batch: WindowBatch) -> Tensor:
        """Scores as published, from the raw logit of the positive class, or its probability."""
        classes, _ = self._classes(batch)
        return published_scores(classes, self.config.scoring, self.config.softmax)

    def _classes(self, batch: WindowBatch) -> tuple[Tensor, Tensor]:
        """Two logits a token of the gallery, (w, i - 1, slots, 2) float32, and which are real."""
        tokens, mask = self._tokens(batch)
        windows, images, slots, dim = tokens.shape
        global_tokens = torch.zeros_like(mask)
        global_tokens[:, 0] = True
        global_tokens[:, :, -1] = True
        length = images * slots
        # The Longformer pads to whole windows with an embedding of its vocabulary, which is gone.
        padding = -length % self.config.attention_window
        position = torch.arange(length, device=tokens.device) + _FIRST_POSITION
        if self.training:
            # Lists that are shorter than a window start anywhere in it: all positions are learnt.
            room = max(0, self.config.rerank.window - (images - 1))
            position = position + slots * int(torch.randint(room + 1, ()))
        hidden = self.language_model.longformer(
            inputs_embeds=F.pad(tokens.flatten(1, 2), (0, 0, 0, padding)),
            attention_mask=F.pad(mask.flatten(1).long(), (0, padding)),
            global_attention_mask=F.pad((global_tokens & mask).flatten(1).long(), (0, padding)),
            position_ids=F.pad(position, (0, padding), value=1).expand(windows, -1),
            token_type_ids=torch.zeros(
                windows, length + padding, dtype=torch.long, device=tokens.device
            ),
        ).last_hidden_state[:, :length]
        hidden = self.language_model.dropout(hidden.view(windows, images, slots, dim)[:, 1:])
        classes = self.language_model.classifier(hidden)
        return classes.float(), mask[:, 1:]

    def _tokens(self, batch: WindowBatch) -> tuple[Tensor, Tensor]:
        """(w, i, slots, dim), and which are real: (w, i, slots)."""
        missing = self.config.descriptors_per_image - batch.local_mask.shape[2]
        locals_ = F.pad(batch.locals, (0, 0, 0, missing))
        scales = F.pad(batch.scales, (0, missing))
        separator = self.language_model.longformer.sep_embedding
        dtype = separator.dtype
        local = self.local_to_lm(locals_.to(dtype)) + self.scale_encoder(scales)
        image = batch.image_mask.unsqueeze(2)
        tokens = [local, separator.expand(*local.shape[:2], 1, -1)]
        masks = [F.pad(batch.local_mask, (0, missing)), image]
        if self.config.global_dim:
            # Where no image of the batch has a global their length is 0.
            globals_ = F.pad(batch.globals, (0, self.config.global_dim - batch.globals.shape[2]))
            tokens.insert(0, self.global_to_lm(globals_.to(dtype)).unsqueeze(2))
            masks.insert(0, batch.has_global.unsqueeze(2) & image)
        return torch.cat(tokens, dim=2), torch.cat(masks, dim=2)


def published_scores(classes: Tensor, scoring: Scoring, softmax: bool) -> Tensor:
    """(…, slots, 2) to (…): LOCORE's score of an image, which leaves out its separator and, as
    the published code does, counts padding among its locals."""
    positive = (classes.softmax(-1) if softmax else classes)[..., :-1, 1]
    if scoring == "max-sum":
        return positive.sum(-1)
    if scoring == "max-prod":
        return positive.prod(-1)
    return positive[..., 0 if scoring == "max-start" else -1]
