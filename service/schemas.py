"""Bodies of requests and answers, field by field as in docs/api.md."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from model.config import RerankDefaults
from model.windows import Direction
from service.arrays import (
    MAX_ROWS,
    InvalidArrayError,
    JsonBytes,
    Matrix,
    Vector,
    base64_bytes,
)

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


def _base64(value: object) -> object:
    try:
        return base64_bytes(value) if isinstance(value, str) else value
    except InvalidArrayError as error:
        raise PydanticCustomError("base64", str(error)) from None


class Picture(_Request):
    """`data`: a file's bytes, base64 in JSON."""

    data: Annotated[
        bytes,
        BeforeValidator(_base64),
        WithJsonSchema({"type": "string", "contentEncoding": "base64"}),
        JsonBytes(1 << 40),
    ]


class _Described(_Request):
    """Descriptors, or the picture to make them of."""

    descriptors: Matrix | None = None
    scales: Scales | None = None
    mask: Mask | None = None
    global_: Vector | None = Field(None, alias="global")
    image: Picture | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.descriptors is None) == (self.image is None):
            raise PydanticCustomError("one_source", "either descriptors or image is asked for")
        if self.image is not None and (self.scales, self.mask, self.global_) != (None,) * 3:
            message = "scales, mask and global come with descriptors, not with an image"
            raise PydanticCustomError("one_source", message)
        return self


class GalleryImage(_Described):
    id: ImageId
    metadata: Annotated[dict[str, Any], JsonBytes(8 * MAX_METADATA_BYTES)] | None = None


class RegisterRequest(_Request):
    collection: Collection = "default"
    images: Annotated[list[GalleryImage], Field(fail_fast=True)] = Field(min_length=1)
    ttl_seconds: int | None = Field(None, ge=1, le=10 * 365 * 86_400)


class RegisterResponse(BaseModel):
    registered: int
    replaced: int
    truncated: int


class Query(_Described):
    pass


class ExtractRequest(_Request):
    image: Picture


class QueryArrays(BaseModel):
    """A picture's descriptors, packed, as a query takes them."""

    model_config = ConfigDict(populate_by_name=True)

    descriptors: dict[str, Any]
    scales: list[int]
    global_: dict[str, Any] = Field(alias="global")


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
    extract: float = 0.0
    fetch: float
    queue: float
    inference: float
    total: float


class RerankResponse(BaseModel):
    id: str
    model: str
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
    """`sizes`: None of a collection without images, and of a service that does not tell them."""

    count: int
    ids: list[str]
    next_cursor: str | None
    sizes: Sizes | None = None


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


class ServedExtractor(BaseModel):
    """`version`: None while it is not known."""

    name: str
    version: str | None


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
