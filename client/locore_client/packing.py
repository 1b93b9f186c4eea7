"""Packed arrays: base64 of little-endian, row-major bytes, with type and shape."""

from __future__ import annotations

import base64
import binascii
import math
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

_BASE64_PIECE = 1 << 20
"""Characters that are decoded at a time, a multiple of four: decoding holds the interpreter
lock."""

_DTYPES: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2")}


class InvalidArrayError(ValueError):
    """An array's bytes do not fit its shape."""


class PackedArray(BaseModel):
    """`data` is base64 of the little-endian, row-major bytes."""

    model_config = ConfigDict(extra="forbid")

    dtype: Literal["float32", "float16"]
    shape: list[Annotated[int, Field(ge=1)]] = Field(min_length=1, max_length=2)
    data: str


def pack(values: NDArray[Any]) -> dict[str, Any]:
    """The packed form of a float16 or float32 array, ready for JSON."""
    name = "float16" if values.dtype == np.float16 else "float32"
    data = np.ascontiguousarray(values, _DTYPES[name]).tobytes()
    return {
        "dtype": name,
        "shape": list(values.shape),
        "data": base64.b64encode(data).decode("ascii"),
    }


def unpack(array: PackedArray) -> NDArray[np.floating]:
    """The array that was packed. Raises InvalidArrayError."""
    return of_bytes(base64_bytes(array.data), array)


def of_bytes(data: bytes, array: PackedArray) -> NDArray[np.floating]:
    """Like `unpack`, from the decoded bytes of `data`. Raises InvalidArrayError."""
    dtype = _DTYPES[array.dtype]
    expected = math.prod(array.shape) * dtype.itemsize
    if len(data) != expected:
        raise InvalidArrayError(f"{len(data)} bytes of data, but the shape takes {expected}")
    return np.frombuffer(data, dtype).reshape(array.shape)


def base64_bytes(text: str | memoryview) -> bytes:
    """Raises InvalidArrayError."""
    pieces = []
    for start in range(0, len(text), _BASE64_PIECE):
        piece = text[start : start + _BASE64_PIECE]
        try:
            pieces.append(binascii.a2b_base64(piece, strict_mode=True))
        except ValueError:  # binascii.Error, or a character beyond ASCII
            raise InvalidArrayError("data is not base64") from None
        if piece[-1:] in ("=", b"=") and start + len(piece) < len(text):
            raise InvalidArrayError("data is not base64")
    return b"".join(pieces)
