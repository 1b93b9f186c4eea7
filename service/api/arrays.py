"""Arrays of numbers in JSON: nested lists, or packed as base64 of little-endian bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Discriminator, Field, InstanceOf, Tag, WithJsonSchema
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import PydanticCustomError

from locore_client import packing
from locore_client.packing import InvalidArrayError

MAX_ROWS = 10_000
"""Rows of a matrix: far more than any checkpoint reads of an image."""


@dataclass(frozen=True)
class JsonBytes:
    """Marks a field of a schema: JSON longer than `max_bytes` is refused without parsing."""

    max_bytes: int


@dataclass(frozen=True)
class Numbers:
    """Marks a field of a schema as an array of `ndim` dimensions."""

    ndim: int


def _base64(value: object) -> object:
    try:
        return packing.base64_bytes(value) if isinstance(value, str) else value
    except InvalidArrayError as error:
        raise PydanticCustomError("base64", str(error)) from None


class Base64:
    """Marks a field of bytes that are base64 in JSON."""


Base64Bytes = Annotated[
    bytes,
    BeforeValidator(_base64),
    WithJsonSchema({"type": "string", "contentEncoding": "base64"}),
    JsonBytes(1 << 40),
    Base64(),
]


class PackedArray(packing.PackedArray):
    __doc__ = packing.PackedArray.__doc__

    # Decoded immediately: as text it would be a second copy of the body.
    data: Base64Bytes  # type: ignore[assignment]


def _form(value: object) -> str:
    if isinstance(value, np.ndarray):
        return "array"
    return "packed" if isinstance(value, dict | PackedArray) else "nested"


# fail_fast: a list of a million wrong elements must not cost a million error messages.
_Row = Annotated[list[float], Field(fail_fast=True)]
_Rows = Annotated[list[_Row], Field(fail_fast=True)]

_Packed = Annotated[PackedArray, Tag("packed")]
# Nested lists that `service.body.nested` has parsed, piece by piece.
_Array = Annotated[SkipJsonSchema[InstanceOf[np.ndarray]], Tag("array")]

Matrix = Annotated[
    Annotated[_Rows, Tag("nested")] | _Packed | _Array, Discriminator(_form), Numbers(2)
]
Vector = Annotated[
    Annotated[_Row, Tag("nested")] | _Packed | _Array, Discriminator(_form), Numbers(1)
]


def unpack(
    array: list[list[float]] | list[float] | PackedArray | NDArray[Any], ndim: int
) -> NDArray[np.float32]:
    """The array as float32 of `ndim` dimensions. Raises InvalidArrayError."""
    if isinstance(array, PackedArray):
        values: NDArray[Any] = packing.of_bytes(array.data, array)
    elif isinstance(array, np.ndarray):
        values = array
    else:
        try:
            values = np.array(array, dtype=np.float64)
        except ValueError:
            raise InvalidArrayError("rows of different lengths") from None
    if values.ndim != ndim or values.size == 0:
        raise InvalidArrayError(f"shape {values.shape}, but {ndim} dimensions are required")
    if len(values) > MAX_ROWS:
        raise InvalidArrayError(f"over {MAX_ROWS:,} {'rows' if ndim == 2 else 'numbers'}")
    return as_float32(values)


def as_float32(values: NDArray[Any]) -> NDArray[np.float32]:
    """Numbers too large for float32 become infinity, which is refused later."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32, copy=False)
