"""Everything that a checkpoint fixes, as plain validated data (its JSON side)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from model.windows import Direction

DEFAULT_CHECKPOINT = Path(__file__).with_name("weights") / "small.safetensors"
"""The checkpoint that is served unless another is named."""

Aggregation = Literal["mean", "first", "last", "sep"]


class RerankDefaults(BaseModel):
    """How a list is re-ranked unless the caller says otherwise; chosen on validation data."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    alpha: float = Field(0.5, ge=0, le=1)
    temperature: float = Field(1.0, gt=0)
    window: int = Field(100, ge=1)
    stride: int = Field(50, ge=1)
    direction: Direction = "end-to-start"

    @model_validator(mode="after")
    def _stride_within_window(self) -> RerankDefaults:
        if self.stride > self.window:
            raise ValueError("stride is larger than window")
        return self


class ExtractorId(BaseModel):
    """Which extractor made the descriptors that the model was trained on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    version: str


class ModelConfig(BaseModel):
    """Sizes of the Mamba re-ranker (design.md, "The model")."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: Literal["mamba"] = "mamba"
    name: str
    extractor: ExtractorId
    descriptor_dim: int = Field(ge=1)
    global_dim: int = Field(ge=1)
    descriptors_per_image: int = Field(48, ge=1)
    scale_levels: int = Field(8, ge=1, le=256)

    dim: int = Field(96, ge=8)
    depth: int = Field(1, ge=1)
    image_layers: int = Field(6, ge=0)
    """Layers between images in each block."""
    tokens_per_image: int = Field(12, ge=1)
    """Locals of an image that become tokens, those that match best; all count in the features."""
    attention_heads: int = Field(4, ge=1)
    expand: int = Field(2, ge=1)
    scan_head_dim: int = Field(32, ge=1)
    scan_state: int = Field(32, ge=1)
    conv_width: int = Field(5, ge=1)
    mlp_ratio: float = Field(2.0, gt=0)
    aggregation: Aggregation = "sep"

    rerank: RerankDefaults = RerankDefaults()
    held_out_classes: tuple[int, ...] = ()
    """Classes of its data set that training never saw, and that it may be evaluated on."""

    @property
    def extra_tokens(self) -> int:
        """Tokens that an image takes beside its locals: SEP and its global."""
        return 2

    @model_validator(mode="after")
    def _sizes_fit(self) -> ModelConfig:
        if self.dim % self.attention_heads:
            raise ValueError("dim is not a multiple of attention_heads")
        if self.dim * self.expand % self.scan_head_dim:
            raise ValueError("dim * expand is not a multiple of scan_head_dim")
        if self.conv_width % 2 == 0:
            raise ValueError("conv_width must be odd: the convolution looks both ways")
        return self
