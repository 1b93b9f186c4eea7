"""The contract's answers, field by field as in docs/api.md, and what else both sides name.

The service answers with these very classes; what it asks of a request is its own.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_TIMEOUT_MS = 600_000
REQUEST_ID_HEADER = "X-Request-ID"

Direction = Literal["end-to-start", "start-to-end", "end-to-start-to-end", "start-to-end-to-start"]


class RegisterResponse(BaseModel):
    registered: int
    replaced: int
    truncated: int


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
    extract: float = 0.0
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
    """`bytes`: of its records, estimated from a sample if there are many."""

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
    None where there is no limit; `max_rerank_bytes` and `max_image_bytes`: None of a service that
    does not tell them."""

    max_images_per_request: int
    max_payload_bytes: int
    max_rerank_bytes: int | None = None
    max_image_bytes: int | None = None
    max_shortlist: int
    descriptors_per_image: int
    min_descriptor_dim: int
    max_descriptor_dim: int
    longest_window: int | None


class RerankDefaults(BaseModel):
    """How a list is re-ranked unless the caller says otherwise."""

    alpha: float
    temperature: float
    window: int
    stride: int
    direction: Direction


class ServedExtractor(BaseModel):
    """`version`: None while it is not known."""

    name: str
    version: str | None


class QueryArrays(BaseModel):
    """A picture's descriptors, packed, as a query takes them."""

    model_config = ConfigDict(populate_by_name=True)

    descriptors: dict[str, Any]
    scales: list[int]
    global_: dict[str, Any] = Field(alias="global")


class ExtractResponse(BaseModel):
    """`keypoints` (n, 2), packed: x and y of each local, as fractions of `width` and `height`."""

    extractor: ServedExtractor
    query: QueryArrays
    keypoints: dict[str, Any]
    width: int
    height: int
    ms: float


class Info(BaseModel):
    """`sizes`: that the model asks for, None where any will do; `rerank`: its defaults;
    `metrics`: the collections that have one."""

    model: ServedModel
    sizes: Sizes | None
    limits: Limits
    rerank: RerankDefaults
    extractor: ServedExtractor | None
    metrics: list[str]


class ErrorBody(BaseModel):
    code: str
    message: str
    details: dict[str, Any]


class ErrorResponse(BaseModel):
    error: ErrorBody
