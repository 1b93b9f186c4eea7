"""Arrays of numbers in JSON: nested lists, or packed as base64 of the little-endian bytes."""

from __future__ import annotations

import base64
import binascii
import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Discriminator, Field, InstanceOf, Tag
from pydantic.json_schema import SkipJsonSchema

MAX_ROWS = 10_000
"""Of a matrix: far more than any checkpoint takes of an image."""

_BASE64_PIECE = 1 << 20
"""Characters that are decoded at once, a multiple of four: it holds the interpreter lock."""

DTYPES: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2")}


class InvalidArrayError(ValueError):
    """An array whose shape or bytes do not fit."""


@dataclass(frozen=True)
class JsonBytes:
    """Marks a field of a schema: it is not parsed where its JSON is longer than `most`."""

    most: int


@dataclass(frozen=True)
class Numbers:
    """Marks a field of a schema as an array of `ndim` dimensions."""

    ndim: int


class PackedArray(BaseModel):
    """`data` is base64 of the little-endian, row-major bytes."""

    model_config = ConfigDict(extra="forbid")

    dtype: Literal["float32", "float16"]
    shape: list[Annotated[int, Field(ge=1)]] = Field(min_length=1, max_length=2)
    data: Annotated[str, JsonBytes(1 << 40)]


def _form(value: object) -> str:
    if isinstance(value, np.ndarray):
        return "array"
    return "packed" if isinstance(value, dict | PackedArray) else "nested"


# fail_fast: a list of a million wrong elements must not cost a million error messages.
_Row = Annotated[list[float], Field(fail_fast=True)]
_Rows = Annotated[list[_Row], Field(fail_fast=True)]

_Packed = Annotated[PackedArray, Tag("packed")]
# Nested lists that `service.nested` has parsed, piece by piece.
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
    """float32, of `ndim` dimensions. Raises InvalidArrayError."""
    if isinstance(array, PackedArray):
        values = _decode(array)
    elif isinstance(array, np.ndarray):
        values = array
    else:
        try:
            values = np.array(array, dtype=np.float64)
        except ValueError:
            raise InvalidArrayError("rows of different lengths") from None
    if values.ndim != ndim or values.size == 0:
        raise InvalidArrayError(f"shape {values.shape}, where {ndim} dimensions are asked for")
    if len(values) > MAX_ROWS:
        raise InvalidArrayError(f"over {MAX_ROWS:,} {'rows' if ndim == 2 else 'numbers'}")
    return as_float32(values)


def as_float32(values: NDArray[Any]) -> NDArray[np.float32]:
    """Too large for float32 is infinity, and refused as such."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32, copy=False)


def _decode(array: PackedArray) -> NDArray[Any]:
    dtype = DTYPES[array.dtype]
    data = base64_bytes(array.data)
    expected = math.prod(array.shape) * dtype.itemsize
    if len(data) != expected:
        raise InvalidArrayError(f"{len(data)} bytes of data, where the shape takes {expected}")
    return np.frombuffer(data, dtype).reshape(array.shape)


def base64_bytes(text: str) -> bytes:
    """Raises InvalidArrayError."""
    pieces = []
    for start in range(0, len(text), _BASE64_PIECE):
        piece = text[start : start + _BASE64_PIECE]
        try:
            pieces.append(binascii.a2b_base64(piece, strict_mode=True))
        except ValueError:  # binascii.Error, or a character beyond ASCII
            raise InvalidArrayError("data is not base64") from None
        if piece.endswith("=") and start + len(piece) < len(text):
            raise InvalidArrayError("data is not base64")
    return b"".join(pieces)


def pack(values: NDArray[Any]) -> dict[str, Any]:
    """The packed form of a float16 or float32 array, ready for JSON."""
    name = "float16" if values.dtype == np.float16 else "float32"
    data = np.ascontiguousarray(values, DTYPES[name]).tobytes()
    return {
        "dtype": name,
        "shape": list(values.shape),
        "data": base64.b64encode(data).decode("ascii"),
    }
