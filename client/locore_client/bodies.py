"""What is sent: images in the service's format, and JSON."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, TypedDict, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from locore_client.contract import Direction, ExtractResponse, StoredImage
from locore_client.exceptions import InvalidDescriptorsError, InvalidRequestError
from locore_client.packing import PackedArray, pack, unpack


@runtime_checkable
class Descriptors(Protocol):
    """An image from an extractor or a descriptor file. `locals`: (n, d), strongest first; `scales`:
    (n,); `global_`: (e,) or None; `padding`: (n,), rows that are not read, or None."""

    @property
    def locals(self) -> NDArray[np.floating]: ...

    @property
    def scales(self) -> NDArray[np.uint8]: ...

    @property
    def global_(self) -> NDArray[np.floating] | None: ...

    @property
    def padding(self) -> NDArray[np.bool_] | None: ...


@dataclass(frozen=True, eq=False)
class ImageArrays:
    """Plain `Descriptors`."""

    locals: NDArray[np.floating]
    scales: NDArray[np.uint8]
    global_: NDArray[np.floating] | None = None
    padding: NDArray[np.bool_] | None = None


Image: TypeAlias = Descriptors | NDArray[np.floating]
"""An array (n, d) alone is an image's local descriptors, strongest first."""


Picture: TypeAlias = bytes | Path
"""The bytes of a picture file, or its path: the service makes descriptors of it."""

Query: TypeAlias = Image | Picture | str
"""The query of a re-ranking; a string is the id of a stored image."""


class RerankFields(TypedDict, total=False):
    """Further fields of POST /rerank, as in docs/api.md. `timeout_ms` can only shorten the
    remaining `timeout` of the call."""

    global_scores: list[float] | NDArray[np.floating] | None
    top_n: int | None
    min_score: float | None
    alpha: float | None
    temperature: float | None
    window: int | None
    stride: int | None
    direction: Direction | None
    on_missing: Literal["error", "skip"]
    return_metadata: bool
    timeout_ms: int


def image_from_arrays(
    locals_: ArrayLike, scales: ArrayLike | None = None, global_: ArrayLike | None = None
) -> ImageArrays:
    """An image from arrays: `locals_` (n, d), strongest first; `scales` (n,) small whole numbers,
    zeros if there are none; `global_` (e,). Vectors may have any length, since the service
    normalises them. Raises InvalidDescriptorsError for other shapes and for values that are not
    numbers.
    """
    rows = _numbers(locals_, 2, "locals_")
    steps = np.zeros(len(rows)) if scales is None else _numbers(scales, 1, "scales")
    if len(steps) != len(rows):
        raise _invalid(f"scales: {len(steps)} for {len(rows)} rows")
    small = steps.astype(np.uint8, casting="unsafe") if _within_a_byte(steps) else None
    if small is None or (small != steps).any():
        raise _invalid("scales: whole numbers from 0 to 255 are required")
    return ImageArrays(rows, small, None if global_ is None else _numbers(global_, 1, "global_"))


def _numbers(values: ArrayLike, ndim: int, what: str) -> NDArray[np.floating]:
    """The numbers unchanged if they are float16 or float32, which the service accepts; else as
    float32."""
    try:
        array = np.asarray(values)
        array = array if array.dtype in (np.float16, np.float32) else array.astype(np.float32)
    except (TypeError, ValueError):
        raise _invalid(f"{what}: an array of numbers is required") from None
    if array.ndim != ndim or not array.size:
        shape = "(n, d)" if ndim == 2 else "(n,)"
        raise _invalid(f"{what}: shape {array.shape}, but {shape} is required")
    return array


def _within_a_byte(numbers: NDArray[np.floating]) -> bool:
    return bool(((numbers >= 0) & (numbers <= 255)).all())


def _invalid(message: str) -> InvalidDescriptorsError:
    return InvalidDescriptorsError("invalid_descriptors", message)


def picture_bytes(picture: Picture) -> bytes:
    """Raises InvalidRequestError for a file that cannot be read."""
    if isinstance(picture, bytes):
        return picture
    try:
        return picture.read_bytes()
    except OSError as error:
        raise InvalidRequestError("invalid_request", f"{picture}: {error.strerror}") from None


def image_fields(image: Image | Picture) -> dict[str, Any]:
    """The fields of an image: its descriptors or its picture. Raises InvalidDescriptorsError and
    InvalidRequestError."""
    if not isinstance(image, bytes | Path):
        return packed_image(image)
    return {"image": {"data": base64.b64encode(picture_bytes(image)).decode("ascii")}}


def packed_image(image: Image) -> dict[str, Any]:
    """An image's arrays in the service's format. Raises InvalidDescriptorsError."""
    if not isinstance(image, Descriptors):
        image = image_from_arrays(image)
    packed: dict[str, Any] = {
        "descriptors": pack(np.asarray(image.locals)),
        "scales": image.scales.tolist(),
    }
    if image.padding is not None:
        packed["mask"] = image.padding.astype(int).tolist()
    if image.global_ is not None:
        packed["global"] = pack(np.asarray(image.global_))
    return packed


def descriptors_of(stored: StoredImage | ExtractResponse) -> ImageArrays:
    """The arrays of an extracted picture, or of an image that was requested with its descriptors.
    Raises ValueError if it was requested without."""
    if isinstance(stored, ExtractResponse):
        query = stored.query
        return ImageArrays(
            _unpacked(query.descriptors),
            np.array(query.scales, np.uint8),
            _unpacked(query.global_),
        )
    if stored.arrays is None:
        raise ValueError(f"image {stored.id!r} was requested without its descriptors")
    global_, mask = stored.arrays.global_, stored.mask
    return ImageArrays(
        _unpacked(stored.arrays.descriptors),
        np.array(stored.scales, np.uint8),
        None if global_ is None else _unpacked(global_),
        None if mask is None else np.array(mask, np.bool_),
    )


def _unpacked(array: dict[str, Any]) -> NDArray[np.floating]:
    return unpack(PackedArray.model_validate(array))


def rerank_body(
    query: Query, gallery_ids: list[str], collection: str, **options: Any
) -> dict[str, Any]:
    """The JSON body of POST /rerank; `options` are RerankFields."""
    return {
        "collection": collection,
        "query": {"id": query} if isinstance(query, str) else image_fields(query),
        "gallery_ids": gallery_ids,
        **options,
    }


def to_json(value: object) -> bytes:
    """Compact JSON, also of numpy's numbers. Raises InvalidRequestError for NaN, infinity and
    values that JSON cannot represent."""
    try:
        text = json.dumps(
            value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain
        )
        return text.encode()
    except (TypeError, ValueError) as error:
        raise InvalidRequestError("invalid_request", f"the request: {error}") from None


def _plain(value: object) -> object:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be represented in JSON")
