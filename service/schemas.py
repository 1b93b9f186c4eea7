"""Bodies of requests and answers, field by field as in docs/api.md."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from model.config import ExtractorId, RerankDefaults
from model.windows import Direction
from service.arrays import MAX_ROWS, JsonBytes, Matrix, Vector

MAX_SHORTLIST = 1600
MAX_TIMEOUT_MS = 600_000
REQUEST_ID_HEADER = "X-Request-ID"
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


class GalleryImage(_Request):
    id: ImageId
    descriptors: Matrix
    scales: Scales | None = None
    mask: Mask | None = None
    global_: Vector | None = Field(None, alias="global")
    metadata: Annotated[dict[str, Any], JsonBytes(8 * MAX_METADATA_BYTES)] | None = None


class RegisterRequest(_Request):
    collection: Collection = "default"
    images: Annotated[list[GalleryImage], Field(fail_fast=True)] = Field(min_length=1)
    ttl_seconds: int | None = Field(None, ge=1, le=10 * 365 * 86_400)


class RegisterResponse(BaseModel):
    registered: int
    replaced: int
    truncated: int


class QueryDescriptors(_Request):
    descriptors: Matrix
    scales: Scales | None = None
    mask: Mask | None = None
    global_: Vector | None = Field(None, alias="global")


class QueryId(_Request):
    """A stored image of the collection."""

    id: ImageId


# The first field of each form tells it from the others (`service.outline`).
Query = QueryDescriptors | QueryId


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


class Result(BaseModel):
    id: str
    index: int
    relevance_score: float
    metadata: dict[str, Any] | None = None


class Usage(BaseModel):
    images: int
    windows: int
    tokens: int


class Timings(BaseModel):
    decode: float
    fetch: float
    queue: float
    inference: float
    total: float


class RerankResponse(BaseModel):
    """`collection`: None of a service that does not tell it."""

    id: str
    model: str
    collection: str | None = None
    results: list[Result]
    missing: list[str]
    truncated: bool
    usage: Usage
    timings_ms: Timings


class Sizes(BaseModel):
    """Lengths of local and of global descriptors; None where any will do, or none has come."""

    model_config = ConfigDict(populate_by_name=True)

    local: int
    global_: int | None = Field(alias="global")


class GalleryPage(BaseModel):
    """`sizes`: None of a collection without images, and of a service that does not tell them, as is
    `collection`."""

    collection: str | None = None
    count: int
    ids: list[str]
    next_cursor: str | None
    sizes: Sizes | None = None


class Emptied(BaseModel):
    collection: str
    deleted: int


class CollectionSummary(BaseModel):
    """`bytes`: of its records, reckoned from some of them where there are many."""

    name: str
    count: int
    sizes: Sizes | None
    bytes: int
    aliases: list[str]


class CollectionPage(BaseModel):
    collections: list[CollectionSummary]
    next_cursor: str | None


class Alias(BaseModel):
    alias: str
    collection: str


class AliasPage(BaseModel):
    aliases: list[Alias]
    next_cursor: str | None


class AliasRequest(_Request):
    collection: Collection


class AliasMove(Alias):
    """`previous`: what the alias stood for before."""

    previous: str | None


class StoredArrays(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    descriptors: dict[str, Any]
    global_: dict[str, Any] | None = Field(alias="global")


class StoredImage(BaseModel):
    id: str
    collection: str
    count: int
    dimension: int
    dtype: str
    scales: list[int]
    mask: list[int] | None
    global_dimension: int | None
    metadata: dict[str, Any] | None
    arrays: StoredArrays | None = None


class Health(BaseModel):
    status: str


class ServedModel(BaseModel):
    name: str
    backbone: str
    kernel: str
    device: str
    dtype: str


class Limits(BaseModel):
    """`descriptors_per_image`: locals of an image that count, the first ones; `longest_window`:
    None where there is no limit; `max_rerank_bytes`: None of a service that does not tell it."""

    max_images_per_request: int
    max_payload_bytes: int
    max_rerank_bytes: int | None = None
    max_shortlist: int
    descriptors_per_image: int
    min_descriptor_dim: int
    max_descriptor_dim: int
    longest_window: int | None


class Info(BaseModel):
    """`sizes`: that the model asks for, None where any will do; `rerank`: its defaults;
    `metrics`: the collections that have one."""

    model: ServedModel
    sizes: Sizes | None
    limits: Limits
    rerank: RerankDefaults
    extractor: ExtractorId | None
    metrics: list[str]


class ErrorBody(BaseModel):
    code: str
    message: str
    details: dict[str, Any]


class ErrorResponse(BaseModel):
    error: ErrorBody
