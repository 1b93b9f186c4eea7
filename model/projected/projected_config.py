"""Sizes of the network that projects descriptors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from model.config import HybridConfig
from model.cost import WindowCost
from model.descriptors import DescriptorSizes


class ProjectedConfig(HybridConfig):
    """For descriptors of one extractor, with globals."""

    backbone: Literal["projected"] = "projected"
    descriptor_dim: int = Field(ge=1)
    global_dim: int = Field(ge=1)
    scale_levels: int = Field(8, ge=1, le=256)

    tokens_per_image: int = Field(12, ge=1)
    """The best matching locals of an image, which become tokens; all count in the features."""

    @property
    def extra_tokens(self) -> int:
        """The separator and the global."""
        return 2

    @property
    def sizes(self) -> DescriptorSizes:
        return DescriptorSizes(self.descriptor_dim, self.global_dim)

    def window_cost(self, locals_: Sequence[int]) -> WindowCost:
        """All locals are compared, few become tokens."""
        tokens = [self.extra_tokens + min(self.tokens_per_image, count) for count in locals_]
        return WindowCost(0, len(locals_), max(tokens), sum(tokens))
