"""From the relations of windows to tokens: `[image] [matches, rarest first]` for every image.

An image's token opens its row, so its tokens are a prefix of the row and padding is only ever
behind them. The query has its own token alone: what it matches is told by the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from model.batch import WindowBatch
from model.config import MambaConfig
from model.relations import (
    CONTEXT_FEATURES,
    IMAGE_FEATURES,
    MATCH_FEATURES,
    RELATIONS,
    TO_QUERY,
    Relations,
    window_relations,
)

IMAGE, FIRST_MATCH = 0, 1
"""Slots of an image's row of tokens."""


@dataclass(frozen=True, eq=False)
class RelationBatch:
    """Relations of several windows, padded: pairs (w, r, i, i), image (w, i, IMAGE_FEATURES),
    matches (w, i, t, MATCH_FEATURES), context (w, CONTEXT_FEATURES), mask (w, i, 1 + t) of the
    tokens that are real."""

    pairs: Tensor
    image: Tensor
    matches: Tensor
    context: Tensor
    mask: Tensor


@torch.no_grad()
def relate(batch: WindowBatch, most_matches: int) -> RelationBatch:
    """Each window is computed in its own shape: its company does not even change rounding."""
    windows = [
        window_relations(
            batch.locals[w, : shape.images, : shape.locals, : shape.local_dim],
            batch.local_mask[w, : shape.images, : shape.locals],
            batch.globals[w, : shape.images, : shape.global_dim],
            batch.has_global[w, : shape.images],
            most_matches,
        )
        for w, shape in enumerate(batch.shapes)
    ]
    return _padded(windows, batch.image_mask)


def _padded(windows: Sequence[Relations], image_mask: Tensor) -> RelationBatch:
    count, images = image_mask.shape
    most = max(window.matches.shape[1] for window in windows)
    first = windows[0].image
    pairs = first.new_zeros(count, len(RELATIONS), images, images)
    matches = first.new_zeros(count, images, most, MATCH_FEATURES)
    mask = torch.zeros(count, images, 1 + most, dtype=torch.bool, device=first.device)
    mask[:, :, IMAGE] = image_mask
    for w, window in enumerate(windows):
        size, slots = len(window.image), window.matches.shape[1]
        pairs[w, :, :size, :size] = window.pairs
        matches[w, 1:size, :slots] = window.matches
        mask[w, 1:size, FIRST_MATCH : FIRST_MATCH + slots] = True
    image = pad_sequence([window.image for window in windows], batch_first=True)
    context = torch.stack([window.context for window in windows])
    return RelationBatch(pairs, image, matches, context, mask)


class Tokens(nn.Module):
    def __init__(self, config: MambaConfig) -> None:
        super().__init__()
        dim = config.dim
        self.role = nn.Embedding(2, dim)
        self.image = _embedding(IMAGE_FEATURES, dim)
        self.match = _embedding(MATCH_FEATURES, dim)
        self.context = _embedding(CONTEXT_FEATURES, dim)

    def forward(self, relations: RelationBatch) -> Tensor:
        """(w, i, 1 + t, dim); padded tokens are zero."""
        dtype = self.role.weight.dtype
        images = relations.image.shape[1]
        role = (torch.arange(images, device=relations.image.device) == 0).long()
        context = self.context(relations.context.to(dtype)).unsqueeze(1)
        image = self.image(relations.image.to(dtype)) + self.role(role) + context
        match = self.match(relations.matches.to(dtype))
        tokens = torch.cat((image.unsqueeze(2), match), dim=2)
        masked: Tensor = tokens * relations.mask.unsqueeze(-1)
        return masked


class Evidence(nn.Module):
    """A logit from the standardised relations to the query alone, weighted as the list as a whole
    suggests: which cue to trust differs between lists. Untrained it is their sum, which is what
    learning starts from."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Linear(CONTEXT_FEATURES, len(TO_QUERY))
        with torch.no_grad():
            self.weight.weight.zero_()
            self.weight.bias.fill_(UNTRAINED_WEIGHT)

    def forward(self, relations: RelationBatch) -> Tensor:
        """(w, i)"""
        context = _GENTLE * relations.context.to(self.weight.weight.dtype)
        weights = self.weight(context)
        features = relations.image[:, :, : len(TO_QUERY)].to(weights.dtype)
        logits: Tensor = (features @ weights.unsqueeze(2)).squeeze(2)
        return logits


UNTRAINED_WEIGHT = 0.2
_GENTLE = 0.2
"""What the context is multiplied by: a step of its weights moves the logits of a whole list, and
would drown what all others learn."""


def _embedding(features: int, dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(features, dim), nn.SiLU(), nn.Linear(dim, dim))
