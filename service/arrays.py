"""Arrays of numbers in JSON: nested lists, or packed as base64 of the little-endian bytes."""

from __future__ import annotations

import base64
import binascii
import math
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

DTYPES: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2")}


class InvalidArrayError(ValueError):
    """An array whose shape or bytes do not fit."""


class PackedArray(BaseModel):
    """`data` is base64 of the little-endian, row-major bytes."""

    model_config = ConfigDict(extra="forbid")

    dtype: Literal["float32", "float16"]
    shape: list[Annotated[int, Field(ge=1)]] = Field(min_length=1, max_length=2)
    data: str


def _form(value: object) -> str:
    return "packed" if isinstance(value, dict | PackedArray) else "nested"


# fail_fast: a list of a million wrong elements must not cost a million error messages.
_Row = Annotated[list[float], Field(fail_fast=True)]
_Rows = Annotated[list[_Row], Field(fail_fast=True)]

Matrix = Annotated[
    Annotated[_Rows, Tag("nested")] | Annotated[PackedArray, Tag("packed")], Discriminator(_form)
]
Vector = Annotated[
    Annotated[_Row, Tag("nested")] | Annotated[PackedArray, Tag("packed")], Discriminator(_form)
]


def unpack(array: list[list[float]] | list[float] | PackedArray, ndim: int) -> NDArray[np.float32]:
    """float32, of `ndim` dimensions. Raises InvalidArrayError."""
    if isinstance(array, PackedArray):
        values = _decode(array)
    else:
        try:
            values = np.array(array, dtype=np.float64)
        except ValueError:
            raise InvalidArrayError("rows of different lengths") from None
    if values.ndim != ndim or values.size == 0:
        raise InvalidArrayError(f"shape {values.shape}, where {ndim} dimensions are asked for")
    with np.errstate(over="ignore"):  # too large for float32 is infinity, and refused as such
        return values.astype(np.float32)


def _decode(array: PackedArray) -> NDArray[Any]:
    dtype = DTYPES[array.dtype]
    try:
        data = base64.b64decode(array.data, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidArrayError("data is not base64") from None
    expected = math.prod(array.shape) * dtype.itemsize
    if len(data) != expected:
        raise InvalidArrayError(f"{len(data)} bytes of data, where the shape takes {expected}")
    return np.frombuffer(data, dtype).reshape(array.shape)


def pack(values: NDArray[Any]) -> dict[str, Any]:
    """The packed form of a float16 or float32 array, ready for JSON."""
    name = "float16" if values.dtype == np.float16 else "float32"
    data = np.ascontiguousarray(values, DTYPES[name]).tobytes()
    return {
        "dtype": name,
        "shape": list(values.shape),
        "data": base64.b64encode(data).decode("ascii"),
    }
