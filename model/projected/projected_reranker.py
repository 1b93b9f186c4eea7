"""The network that projects descriptors of one extractor and holds a metric of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.projected.comparison import IMAGE_FEATURES, compare, features, nearest_first
from model.projected.graph import graphs
from model.projected.projected_blocks import Block
from model.projected.projected_config import ProjectedConfig
from model.projected.projected_tokens import SEP, Tokens, best_matches, token_cosines
from model.reranker import ListReranker
from model.scan import Scan, chunked_scan
from model.window_batch import WindowBatch, collate_distinct
from model.windows import Window


class ProjectedReranker(ListReranker):
    """Blocks of query attention, bidirectional Mamba-2, an MLP, and layers between images.

    Copies of an image are one image to it, and the mixer reads a list in an order of its own, so a
    score depends neither on the order in which the images were named nor on how often.
    """

    config: ProjectedConfig

    def __init__(self, config: ProjectedConfig, scan: Scan = chunked_scan) -> None:
        super().__init__(config)
        self.scan = scan
        self.metric: Tensor
        self.register_buffer("metric", torch.eye(config.global_dim + config.descriptor_dim))
        self.tokens = Tokens(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.dim)
        self.head = nn.Linear(config.dim, 1)
        self.evidence = nn.Linear(IMAGE_FEATURES, 1, bias=False)

    def collate(self, windows: Sequence[Window]) -> WindowBatch:
        """Raises ValueError for descriptors of other sizes than the config's."""
        config = self.config
        batch = collate_distinct(windows, descriptors_per_image=config.descriptors_per_image)
        for shape in batch.shapes:
            if shape.local_dim != config.descriptor_dim or shape.global_dim not in (
                0,
                config.global_dim,
            ):
                raise ValueError(f"{config.sizes} are wanted, not {shape}")
        return replace(
            batch,
            scales=batch.scales.clamp(max=config.scale_levels - 1),
            # Where no image of the batch has a global their length is 0.
            globals=F.pad(batch.globals, (0, config.global_dim - batch.globals.shape[2])),
        )

    def forward(self, batch: WindowBatch) -> tuple[Tensor, Tensor]:
        logits = self.list_logits(batch)
        return logits.gather(1, batch.places).unsqueeze(2), batch.present.unsqueeze(2)

    def list_logits(self, batch: WindowBatch) -> Tensor:
        """(w, i): a logit for every image, the query's without meaning."""
        comparison = compare(batch, self.metric)
        between, overlaps = graphs(batch, comparison)
        local_features, image_features, best = features(batch, comparison, overlaps)
        matches = best_matches(batch, comparison.to_query, best, self.config.tokens_per_image)
        x, mask = self.tokens(batch, comparison, matches, local_features, image_features)
        order, cosines = nearest_first(batch, comparison), token_cosines(matches)
        for block in self.blocks:
            x = block(x, mask, order, cosines, between, self.scan)
        logits: Tensor = self.head(self.norm(x[:, :, SEP])).squeeze(-1)
        logits = logits + self.evidence(image_features.to(logits.dtype)).squeeze(-1)
        return logits.float()
