"""The config of a checkpoint, its JSON file, as validated data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from model.cost import WindowCost
from model.descriptors import DescriptorSizes
from model.windows import Direction

DEFAULT_CHECKPOINT = Path(__file__).with_name("weights") / "relations.safetensors"
"""The checkpoint that is served by default."""

PUBLISHED = "published"


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
    """The extractor of the descriptors that the model was trained on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    version: str

    def fits(self, other: ExtractorId) -> bool:
        """Whether descriptors of both may be compared. Published files and checkpoints do not name
        their extractor's weights: their version is `PUBLISHED`, which fits every other."""
        unknown = PUBLISHED in (self.version, other.version)
        return self.name == other.name and (unknown or self.version == other.version)


class ModelConfig(BaseModel):
    """The config that all backbones share."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    extractor: ExtractorId
    """The extractor that the page and the command line use by default."""
    descriptors_per_image: int = Field(48, ge=1)
    rerank: RerankDefaults = RerankDefaults()
    held_out_classes: tuple[int, ...] = ()
    """Classes of the training data that were held out, for evaluation."""

    @property
    def extra_tokens(self) -> int:
        """Tokens of an image in addition to its locals."""
        raise NotImplementedError

    def window_cost(self, locals_: Sequence[int]) -> WindowCost:
        """The cost of a window, from the numbers of locals of its images, the query first. All are
        read, and images are padded to the longest."""
        images, extra = len(locals_), self.extra_tokens
        return WindowCost(0, images, max(locals_) + extra, sum(locals_) + images * extra)

    @property
    def sizes(self) -> DescriptorSizes | None:
        """The sizes of descriptors that the backbone needs; None if it takes any."""
        return None

    @property
    def listwise(self) -> bool:
        """Whether an image's score depends on the others of its window."""
        return True

    @property
    def longest_window(self) -> int | None:
        """Images of the longest window; None if there is no limit."""
        return None


MAX_LIST = 101
"""The longest list, with the query, that has positions if attention replaces Mamba."""

Mixer = Literal["mamba", "windowed-attention", "longformer", "none"]
"""What mixes the tokens of a list. Only Mamba is shipped; the others are for comparison."""


class HybridConfig(ModelConfig):
    """Sizes of a network of Mamba over the tokens of a list and attention between its images."""

    dim: int = Field(64, ge=8)
    depth: int = Field(1, ge=1)
    image_layers: int = Field(4, ge=0)
    """Layers between images in each block."""
    attention_heads: int = Field(4, ge=1)
    expand: int = Field(1, ge=1)
    scan_head_dim: int = Field(32, ge=1)
    scan_state: int = Field(16, ge=1)
    conv_width: int = Field(5, ge=1)
    mlp_ratio: float = Field(2.0, gt=0)

    @property
    def scan_heads(self) -> int:
        return self.dim * self.expand // self.scan_head_dim

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if self.dim % self.attention_heads:
            raise ValueError("dim is not a multiple of attention_heads")
        if self.dim * self.expand % self.scan_head_dim:
            raise ValueError("dim * expand is not a multiple of scan_head_dim")
        if self.conv_width % 2 == 0:
            raise ValueError("conv_width must be odd: the convolution looks both ways")
        return self


class MambaConfig(HybridConfig):
    """Sizes of the Mamba re-ranker. It reads relations alone, so descriptors may have any size."""

    backbone: Literal["mamba"] = "mamba"

    matches_per_image: int = Field(4, ge=1)
    """Matches of an image with the query that become tokens; the features count all."""
    mixer: Mixer = "mamba"

    @property
    def extra_tokens(self) -> int:
        """The image's own."""
        return 1

    def window_cost(self, locals_: Sequence[int]) -> WindowCost:
        """Relations are computed for each window in its own shape. Only the network's tokens are
        padded; every image has the same number of them."""
        images, matches = len(locals_), min(self.matches_per_image, locals_[0])
        compared = images / 20 + locals_[0] * sum(locals_) / (1000 * images)
        return WindowCost(
            own=images * (3 + compared),
            images=images,
            slots=1 + matches,
            tokens=1 + (images - 1) * (1 + matches),
        )

    @property
    def longest_window(self) -> int | None:
        return MAX_LIST - 1 if self.mixer == "windowed-attention" else None


Scoring = Literal["max-sum", "max-start", "max-end", "max-prod"]
"""LOCORE's score of an image from the logits of its tokens: their sum, the first, that of the last
local, or their product."""


class LongformerConfig(ModelConfig):
    """Sizes of LOCORE's published re-ranker (Xiao et al., CVPR 2025). With a `global_dim` of 0 it
    reads no global descriptor."""

    backbone: Literal["longformer"] = "longformer"
    descriptor_dim: int = Field(ge=1)
    global_dim: int = Field(ge=0)
    scale_levels: int = Field(3, ge=1, le=256)

    dim: int = Field(768, ge=8)
    depth: int = Field(12, ge=1)
    attention_heads: int = Field(12, ge=1)
    attention_window: int = Field(512, ge=2)
    """Tokens that a token attends to, half of them on each side."""
    mlp_dim: int = Field(3072, ge=1)
    positions: int = Field(5122, ge=3)
    """Rows of the table of positions; the first two are not used."""
    project_locals: bool = False
    """Whether locals are projected to `dim`; otherwise they must have that size."""
    project_global: bool = False
    scoring: Scoring = "max-end"
    softmax: bool = False
    """Whether scores are probabilities instead of the positive class's raw logit."""

    @property
    def sizes(self) -> DescriptorSizes:
        return DescriptorSizes(self.descriptor_dim, self.global_dim or None)

    @property
    def longest_window(self) -> int:
        return (self.positions - 2) // self.slots - 1

    @property
    def slots(self) -> int:
        """Tokens of an image: its global, its locals, its separator."""
        return self.descriptors_per_image + self.extra_tokens

    @property
    def extra_tokens(self) -> int:
        return 2 if self.global_dim else 1

    def window_cost(self, locals_: Sequence[int]) -> WindowCost:
        """All images take all their slots, so padding consists of complete images."""
        images, extra = len(locals_), self.extra_tokens
        return WindowCost(0, images, self.slots, sum(locals_) + images * extra)

    @model_validator(mode="after")
    def _sizes_fit(self) -> LongformerConfig:
        if self.dim % self.attention_heads:
            raise ValueError("dim is not a multiple of attention_heads")
        if self.attention_window % 2:
            raise ValueError("attention_window must be even: half of it is on each side")
        if not self.project_locals and self.descriptor_dim != self.dim:
            raise ValueError("locals that are not projected must have the size of dim")
        if not self.project_global and self.global_dim not in (0, self.dim):
            raise ValueError("globals that are not projected must have the size of dim")
        if self.rerank.window > self.longest_window:
            raise ValueError(
                f"a window of {self.rerank.window} images, but positions end at "
                f"{self.longest_window}"
            )
        return self


class PairConfig(ModelConfig):
    """The config of all re-rankers of pairs. They read neither globals nor scales."""

    descriptor_dim: int | None = Field(None, ge=1)
    """None: locals of any length are compared without a projection."""
    descriptors_per_image: int = Field(600, ge=1)

    dim: int = Field(128, ge=1)
    """Numbers of a projected local."""
    bits: int | None = Field(None, ge=1)
    """Signs to which a local is reduced before the projection; None for no reduction."""

    @property
    def extra_tokens(self) -> int:
        return 0

    @property
    def sizes(self) -> DescriptorSizes | None:
        return None if self.descriptor_dim is None else DescriptorSizes(self.descriptor_dim, None)

    @property
    def listwise(self) -> bool:
        return False


class ElvisConfig(PairConfig):
    """Sizes of ELViS (Suma et al., ICLR 2026), by default as published."""

    backbone: Literal["elvis"] = "elvis"

    vote_dim: int = Field(16, ge=1)
    """Hidden numbers of the network that makes a vote of a match."""
    logit_dim: int = Field(64, ge=1)
    """Hidden numbers of the network that makes a logit of all votes, in training."""
    dust_bin_dim: int = Field(128, ge=1)
    """Hidden numbers of the network that gives a local's similarity to the dustbin."""
    sharpness: float = Field(10.0, gt=0)
    """Factor of similarities and dustbins."""
    iterations: int = Field(10, ge=1)
    """Iterations of Sinkhorn's algorithm."""


class AmesConfig(PairConfig):
    """Sizes of AMES (Suma et al., ECCV 2024), by default as published."""

    backbone: Literal["ames"] = "ames"
    descriptor_dim: int = Field(ge=1)

    depth: int = Field(5, ge=1)
    attention_heads: int = Field(2, ge=1)
    mlp_dim: int = Field(1024, ge=1)

    @model_validator(mode="after")
    def _sizes_fit(self) -> AmesConfig:
        if self.dim % self.attention_heads:
            raise ValueError("dim is not a multiple of attention_heads")
        return self


def reason(error: ValidationError) -> str:
    """The first fault of a config, in one line, with the field's name."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        return f"{where}: unknown size"
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else message
