"""Bodies of requests, field by field as in docs/api.md. Answers: `locore_client.contract`."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    model_validator,
)
from pydantic_core import PydanticCustomError

from locore_client import contract
from locore_client.contract import MAX_TIMEOUT_MS, Direction
from model.config import RerankDefaults
from service.api.arrays import MAX_ROWS, Base64Bytes, JsonBytes, Matrix, Vector

MAX_SHORTLIST = 1600
MAX_METADATA_BYTES = 4096

ImageId = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[A-Za-z0-9._:/@=+\-]+$")]
Collection = ImageId
_ROW_NUMBERS = JsonBytes(MAX_ROWS * 32)
Scales = Annotated[list[Annotated[int, Field(ge=0, le=255)]], Field(fail_fast=True), _ROW_NUMBERS]
Mask = Annotated[list[Annotated[int, Field(ge=0, le=1)]], Field(fail_fast=True), _ROW_NUMBERS]
# Similarities: far above any, far below what float32 holds.
Score = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class Picture(_Request):
    """`data`: a file's bytes, base64 in JSON."""

    data: Base64Bytes


class GalleryImage(_Request):
    """Descriptors, or the picture to make them of."""

    id: ImageId
    descriptors: Matrix | None = None
    scales: Scales | None = None
    mask: Mask | None = None
    global_: Vector | None = Field(None, alias="global")
    image: Picture | None = None
    metadata: Annotated[dict[str, Any], JsonBytes(8 * MAX_METADATA_BYTES)] | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.descriptors is None) == (self.image is None):
            raise PydanticCustomError("one_source", "either descriptors or image is required")
        if self.image is not None and (self.scales, self.mask, self.global_) != (None,) * 3:
            message = "scales, mask and global come with descriptors, not with an image"
            raise PydanticCustomError("one_source", message)
        return self


class RegisterRequest(_Request):
    collection: Collection = "default"
    images: Annotated[list[GalleryImage], Field(fail_fast=True)] = Field(min_length=1)
    ttl_seconds: int | None = Field(None, ge=1, le=10 * 365 * 86_400)


class ExtractRequest(_Request):
    image: Picture


class QueryDescriptors(_Request):
    descriptors: Matrix
    scales: Scales | None = None
    mask: Mask | None = None
    global_: Vector | None = Field(None, alias="global")


class QueryPicture(_Request):
    image: Picture


class QueryId(_Request):
    """A stored image of the collection."""

    id: ImageId


# The first field of each form tells it from the others (`service.body.outline`).
Query = QueryDescriptors | QueryPicture | QueryId


class RerankRequest(_Request):
    collection: Collection = "default"
    query: Query
    gallery_ids: Annotated[list[ImageId], Field(fail_fast=True), JsonBytes(MAX_SHORTLIST * 512)] = (
        Field(min_length=1, max_length=MAX_SHORTLIST)
    )
    global_scores: (
        Annotated[list[Score], Field(fail_fast=True), JsonBytes(MAX_SHORTLIST * 64)] | None
    ) = None
    top_n: int | None = Field(None, ge=1)
    min_score: Score | None = None
    alpha: float | None = Field(None, ge=0, le=1)
    temperature: float | None = Field(None, gt=0, allow_inf_nan=False)
    window: int | None = Field(None, ge=1, le=MAX_SHORTLIST)
    stride: int | None = Field(None, ge=1, le=MAX_SHORTLIST)
    direction: Direction | None = None
    on_missing: Literal["error", "skip"] = "error"
    return_metadata: bool = False
    timeout_ms: int = Field(10_000, ge=1, le=MAX_TIMEOUT_MS)


class AliasRequest(_Request):
    collection: Collection


class Info(contract.Info):
    __doc__ = contract.Info.__doc__

    # The checkpoint's own, which has the same fields and their bounds.
    rerank: RerankDefaults  # type: ignore[assignment]
