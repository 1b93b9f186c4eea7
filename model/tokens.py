"""From the relations of windows to tokens: `[image] [matches, rarest first]` for every image.

An image's own token opens its row, so padding is only behind its tokens. The query has its own
token alone: the other images tell what it matches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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
from model.window_batch import WindowBatch, WindowShape

IMAGE, FIRST_MATCH = 0, 1
"""Slots of an image's row of tokens."""
_IMAGES_AT_ONCE = {"cpu": 128, "cuda": 8192}
"""Images whose relations are computed together: more would not fit into a CPU's cache."""


@dataclass(frozen=True, eq=False)
class RelationBatch:
    """Relations of several windows, padded: pairs (w, r, i, i), image (w, i, IMAGE_FEATURES),
    matches (w, i, t, MATCH_FEATURES), context (w, CONTEXT_FEATURES), mask (w, i, 1 + t): which
    tokens are real."""

    pairs: Tensor
    image: Tensor
    matches: Tensor
    context: Tensor
    mask: Tensor


@torch.no_grad()
def relate(batch: WindowBatch, max_matches: int) -> RelationBatch:
    """Windows of one shape are computed together, in that shape."""
    by_shape: dict[WindowShape, list[int]] = {}
    for window, shape in enumerate(batch.shapes):
        by_shape.setdefault(shape, []).append(window)
    at_once = _IMAGES_AT_ONCE[batch.locals.device.type]
    groups = [
        part
        for shape, windows in by_shape.items()
        for part in _split(windows, max(1, at_once // shape.images))
    ]
    relations = [_relations(batch, group, max_matches) for group in groups]
    return _padded(relations, groups, batch.image_mask)


def _split(windows: list[int], size: int) -> list[list[int]]:
    return [windows[first : first + size] for first in range(0, len(windows), size)]


def _relations(batch: WindowBatch, windows: list[int], max_matches: int) -> Relations:
    shape = batch.shapes[windows[0]]
    rows = windows if len(windows) < len(batch.shapes) else slice(None)
    return window_relations(
        batch.locals[rows, : shape.images, : shape.locals, : shape.local_dim],
        batch.local_mask[rows, : shape.images, : shape.locals],
        batch.globals[rows, : shape.images, : shape.global_dim],
        batch.has_global[rows, : shape.images],
        shape.query_locals,
        max_matches,
    )


def _padded(
    relations: Sequence[Relations], groups: Sequence[list[int]], image_mask: Tensor
) -> RelationBatch:
    first = relations[0]
    count, images = image_mask.shape
    max_matches = max(group.matches.shape[2] for group in relations)
    mask = image_mask.unsqueeze(2).repeat(1, 1, 1 + max_matches)
    mask[:, 0, FIRST_MATCH:] = False
    if len(groups) == 1:
        matches = F.pad(first.matches, (0, 0, 0, 0, 1, 0))
        return RelationBatch(first.pairs, first.image, matches, first.context, mask)
    pairs = first.pairs.new_zeros(count, len(RELATIONS), images, images)
    image = first.image.new_zeros(count, images, IMAGE_FEATURES)
    matches = first.matches.new_zeros(count, images, max_matches, MATCH_FEATURES)
    context = first.context.new_zeros(count, CONTEXT_FEATURES)
    for group, windows in zip(relations, groups, strict=True):
        size, slots = group.image.shape[1], group.matches.shape[2]
        pairs[windows, :, :size, :size] = group.pairs
        image[windows, :size] = group.image
        matches[windows, 1:size, :slots] = group.matches
        context[windows] = group.context
        mask[windows, :, FIRST_MATCH + slots :] = False
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
    """A logit from the standardised relations to the query alone, weighted by the context: which
    cue to trust differs between lists. Training starts from their plain sum."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Linear(CONTEXT_FEATURES, len(TO_QUERY))
        with torch.no_grad():
            self.weight.weight.zero_()
            self.weight.bias.fill_(UNTRAINED_WEIGHT)

    def forward(self, relations: RelationBatch) -> Tensor:
        """(w, i)"""
        context = _CONTEXT_SCALE * relations.context.to(self.weight.weight.dtype)
        weights = self.weight(context)
        features = relations.image[:, :, : len(TO_QUERY)].to(weights.dtype)
        logits: Tensor = (features * weights.unsqueeze(1)).sum(2)
        return logits


UNTRAINED_WEIGHT = 0.2
_CONTEXT_SCALE = 0.2
"""What the context is multiplied by: a step of its weights moves the logits of a whole list, and
would drown what the other weights learn."""


def _embedding(features: int, dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(features, dim), nn.SiLU(), nn.Linear(dim, dim))
