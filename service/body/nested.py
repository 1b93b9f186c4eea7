"""Parses nested lists of numbers from JSON to arrays, in pieces, up to the first fault."""

from __future__ import annotations

import re
from itertools import chain

import msgspec
import numpy as np
from numpy.typing import NDArray

from locore_client.packing import InvalidArrayError
from service.api.arrays import MAX_ROWS, as_float32
from service.api.sizes import MAX_DIM, MIN_DIM
from service.body.json_fault import fault_of, joined_place

_PIECE = MAX_DIM * 64
"""Bytes that are parsed at a time: at least one row, whatever its white space."""

_PIECE_ROWS = 512
"""Lists cost more than their numbers, since the garbage collector visits each."""

_BETWEEN = re.compile(rb"[ \t\r\n]*,?[ \t\r\n]*")
_VECTOR = msgspec.json.Decoder(list[float])
_ROWS = msgspec.json.Decoder(list[list[float]])


class InvalidElementError(InvalidArrayError):
    """An element is not a number, or not a row. `place`: where the element is, such as `3.1`."""

    def __init__(self, place: str, what: str) -> None:
        super().__init__(what)
        self.place = place


def vector(text: bytes) -> NDArray[np.float32]:
    """`text`: one JSON value. Raises InvalidArrayError."""
    if len(text) > _PIECE and text.startswith(b"["):
        raise InvalidArrayError(f"over {MAX_DIM:,} numbers, or over {_PIECE:,} bytes")
    try:
        return as_float32(np.array(_VECTOR.decode(text), np.float64))
    except msgspec.ValidationError as error:
        raise InvalidElementError(*fault_of(error)) from None


def matrix(text: bytes) -> NDArray[np.float32]:
    """`text`: one complete JSON value. Reading stops at too many rows, or at rows whose length is
    out of bounds: the caller refuses the array by its shape. Raises InvalidArrayError."""
    if not text.startswith(b"["):
        raise InvalidElementError("", "neither a list of rows nor a packed array")
    pieces: list[NDArray[np.float32]] = []
    start, count, last = 1, 0, len(text) - 1
    # The first row decides whether to read the others, and how many make a piece.
    size = text.find(b"]", start, _PIECE) + 1 or _PIECE
    while (start := _after(text, start)) < last:
        end = text.rfind(b"]", start, min(start + size, last)) + 1
        end = end or text.find(b"]", start, min(start + _PIECE, last)) + 1
        piece = _rows(text, start, end, count)
        if pieces and piece.shape[1] != pieces[0].shape[1]:
            raise InvalidArrayError("rows of different lengths")
        if not pieces:
            size = min(_PIECE, _PIECE_ROWS * size)
        pieces.append(piece)
        start, count = end, count + len(piece)
        if count > MAX_ROWS or not MIN_DIM <= piece.shape[1] <= MAX_DIM:
            break
    return np.concatenate(pieces) if pieces else np.zeros((0, 0), np.float32)


def _after(text: bytes, start: int) -> int:
    between = _BETWEEN.match(text, start)
    return start if between is None else between.end()


def _rows(text: bytes, start: int, end: int, earlier_rows: int) -> NDArray[np.float32]:
    """The rows up to `end` (0: no row ends within a piece)."""
    if not end and text.startswith(b"[", start):
        too_long = f"over {MAX_DIM:,} numbers, or over {_PIECE:,} bytes"
        raise InvalidElementError(str(earlier_rows), too_long)
    try:
        rows = _decoded(text, start, end)
    except msgspec.ValidationError as error:
        place, what = fault_of(error)
        row, _, rest = place.partition(".")
        raise InvalidElementError(joined_place(earlier_rows + int(row or 0), rest), what) from None
    except msgspec.DecodeError:
        raise InvalidElementError(
            str(earlier_rows), "not all elements from here on are rows"
        ) from None
    lengths = set(map(len, rows))
    if len(lengths) > 1:
        raise InvalidArrayError("rows of different lengths")
    (length,) = lengths
    # Of an array that will be refused, enough rows are kept to show its shape.
    rows = rows[: MAX_ROWS + 1 - earlier_rows if MIN_DIM <= length <= MAX_DIM else 1]
    # numpy spends much more time on each row of a list than on its numbers.
    numbers = np.fromiter(chain.from_iterable(rows), np.float64, len(rows) * length)
    return as_float32(numbers).reshape(len(rows), length)


def _decoded(text: bytes, start: int, end: int) -> list[list[float]]:
    """Raises msgspec.DecodeError, and ValidationError if it knows which element is wrong."""
    try:
        return _ROWS.decode(b"[" + text[start : max(start, end)] + (b"]" if end else b""))
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        # The piece ends inside something that is not a row; its beginning shows what it is.
        return _ROWS.decode(b"[" + text[start : max(start, end) + _PIECE])
