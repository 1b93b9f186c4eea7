"""Vectors of length 1 in a few bits a number, without a codebook: a code depends on its vector
alone.

- `int8`: whole numbers from -127 to 127, of which the largest of a vector is 127.
- `int4` and `binary`: the vector is rotated, always in the same way, so that its numbers are spread
  about as normal ones are, whatever they were before. Each becomes the nearest of 16 or 2 levels
  that suit the normal distribution (Max, "Quantizing for minimum distortion", 1960). With 2 levels
  these are the sign codes of RaBitQ (Gao & Long, SIGMOD 2024), with 16 those of TurboQuant (Zandieh
  et al., 2025).

No scale is stored: a vector has length 1, and so has what its code stands for. RaBitQ's factor of
correction is such a scale too; a cosine does not see it.

The rotation turns some signs and takes a discrete cosine transform of two dimensions. Formulas say
what it is, so that it stays the same for ever. A decoded vector is rotated back, so it goes with
any other. `int8` needs no rotation: its squared error is a hundredth of that of `int4` or less.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import isqrt
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

CodeType = Literal["int8", "int4", "binary"]
CODE_TYPES: tuple[CodeType, ...] = get_args(CodeType)
StoreDtype = Literal["float32", "float16", CodeType]
STORE_DTYPES: tuple[StoreDtype, ...] = get_args(StoreDtype)
"""The forms in which descriptors are stored, from the largest to the smallest."""

_Rows = NDArray[np.float32]
"""(n, d)"""

_BITS: Mapping[CodeType, int] = {"int8": 8, "int4": 4, "binary": 1}
_UPPER_LEVELS: Mapping[CodeType, tuple[float, ...]] = {
    "int4": (0.1284, 0.3881, 0.6568, 0.9424, 1.2562, 1.6181, 2.0690, 2.7326),
    "binary": (0.7979,),
}
_LARGEST_INT8 = 127
_NUMBERS_AT_ONCE = 50_000
"""Decoded together: what is computed on the way stays in the processor's cache."""
_FACTOR = 8
"""A vector's length is a multiple of this where it can be cut into a matrix as it is."""


def row_bytes(dim: int, code_type: CodeType) -> int:
    """Bytes of the code of a vector of `dim` numbers."""
    return -(-dim * _BITS[code_type] // 8)


def encode(vectors: NDArray[np.floating], code_type: CodeType) -> NDArray[np.uint8]:
    """(n, row_bytes) of rows (n, d). A row of zeros has a code too, which `int8` alone gives back
    as zeros."""
    rows = vectors.astype(np.float32)
    if code_type == "int8":
        largest = np.abs(rows).max(axis=1, keepdims=True)
        integers = np.rint(rows / np.where(largest > 0, largest, 1) * _LARGEST_INT8)
        return np.asarray(integers.astype(np.int8).view(np.uint8))
    rotated = _rotation(rows.shape[1]).forth(_unit(rows)) * np.float32(rows.shape[1] ** 0.5)
    levels = _levels(code_type)
    places = np.searchsorted((levels[1:] + levels[:-1]) / 2, rotated).astype(np.uint8)
    if code_type == "binary":
        return np.packbits(places, axis=1)
    pairs = np.pad(places, ((0, 0), (0, places.shape[1] % 2)))
    return np.asarray((pairs[:, ::2] << 4) | pairs[:, 1::2])


def decode(
    parts: Sequence[bytes | memoryview], dim: int, code_type: CodeType
) -> list[NDArray[np.float32]]:
    """Rows (n, dim) of length 1 of each part, which is the codes of n vectors one after another.
    Many parts together take less time; each has an array of its own."""
    width = row_bytes(dim, code_type)
    counts = [len(part) // width for part in parts]
    longest = max(counts, default=0)
    at_once = max(1, _NUMBERS_AT_ONCE // max(longest * dim, 1))
    rotation = None if code_type == "int8" else _rotation(dim)
    last_signs = None if rotation is None else np.tile(rotation.signs, (longest, 1))
    space = np.empty((2, at_once * longest * -(-dim // 8) * 8), np.float32)
    images: list[NDArray[np.float32]] = []
    for start in range(0, len(parts), at_once):
        codes = np.frombuffer(b"".join(parts[start : start + at_once]), np.uint8)
        rows = _unit(_numbers(codes.reshape(-1, width), dim, code_type, space[0]))
        if rotation is not None:
            rotation.back_but_for_signs(rows, space[1])
        at = 0
        for count in counts[start : start + at_once]:
            own = rows[at : at + count]
            # Where there are signs, multiplying by them makes the copy.
            images.append(own.copy() if last_signs is None else own * last_signs[:count])
            at += count
    return images


def _numbers(codes: NDArray[np.uint8], dim: int, code_type: CodeType, space: _Rows) -> _Rows:
    """What the codes (n, row_bytes) stand for, of any length and not rotated back; in `space`."""
    if code_type == "int8":
        return codes.view(np.int8).astype(np.float32)
    # A byte's numbers are looked up at once, as one value.
    values = _byte_values(code_type)
    numbers = space.view(values.dtype)[: codes.size].reshape(codes.shape)
    values.take(codes, mode="clip", out=numbers)
    return np.ascontiguousarray(numbers.view(np.float32)[:, :dim])


def _unit(rows: _Rows) -> _Rows:
    """`rows` themselves, of length 1; zeros stay zeros."""
    lengths = np.sqrt(np.einsum("nd,nd->n", rows, rows))
    rows *= (1 / np.where(lengths > 0, lengths, 1))[:, None]
    return rows


def _levels(code_type: CodeType) -> NDArray[np.float32]:
    """Ascending, for the standard normal distribution."""
    upper = np.array(_UPPER_LEVELS[code_type], np.float32)
    return np.concatenate((-upper[::-1], upper))


@lru_cache
def _byte_values(code_type: CodeType) -> NDArray[Any]:
    """(256,): the levels that each byte stands for, side by side."""
    bits = _BITS[code_type]
    shifts = np.arange(8 - bits, -1, -bits)
    places = (np.arange(256)[:, None] >> shifts) & ((1 << bits) - 1)
    levels = np.ascontiguousarray(_levels(code_type)[places])
    # numpy copies numbers faster than what it knows as bytes alone.
    width = levels.shape[1] * levels.itemsize
    return levels.view(np.float64 if width == 8 else np.dtype((np.void, width))).ravel()


@dataclass(frozen=True, eq=False)
class _Rotation:
    """Of vectors of d numbers: `signs` (d,), then `left` (a, a) and `right` (b, b) on both sides of
    the first a * b numbers as a matrix (a, b); the same for the last ones where a * b < d. These
    are far fewer products than with a matrix (d, d)."""

    signs: NDArray[np.float32]
    left: NDArray[np.float32]
    right: NDArray[np.float32]

    def forth(self, rows: _Rows) -> _Rows:
        """New rows, rotated."""
        space = np.empty(rows.size, np.float32)
        for part in self._parts:
            rows = rows * self.signs
            _multiply(rows, part, self.left, self.right.T, space)
        return rows

    def back_but_for_signs(self, rows: _Rows, space: _Rows) -> None:
        """In place; what is left to do is to multiply by the signs."""
        first, *others = self._parts[::-1]
        _multiply(rows, first, self.left.T, self.right, space)
        for part in others:
            rows *= self.signs
            _multiply(rows, part, self.left.T, self.right, space)

    @property
    def _parts(self) -> list[slice]:
        dim, size = len(self.signs), len(self.left) * len(self.right)
        return [slice(0, size), slice(dim - size, dim)][: 1 if size == dim else 2]


def _multiply(rows: _Rows, part: slice, left: _Rows, right: _Rows, space: _Rows) -> None:
    """Both products of the `part` of each row as a matrix (a, b), in place; what `space` holds is
    overwritten."""
    matrices = rows[:, part].reshape(len(rows), len(left), len(right))
    products = space[: matrices.size].reshape(-1, len(right))
    np.matmul(matrices.reshape(products.shape), right, out=products)
    np.matmul(left, products.reshape(matrices.shape), out=matrices)


@lru_cache(maxsize=64)
def _rotation(dim: int) -> _Rotation:
    matrix_size = dim - dim % _FACTOR if dim > _FACTOR else dim
    a = max(size for size in range(1, isqrt(matrix_size) + 1) if matrix_size % size == 0)
    bits = np.frombuffer(hashlib.shake_256(b"locore").digest(-(-dim // 8)), np.uint8)
    signs = 1 - 2 * np.unpackbits(bits)[:dim].astype(np.float32)
    return _Rotation(signs, _cosines(a), _cosines(matrix_size // a))


def _cosines(size: int) -> NDArray[np.float32]:
    """(size, size): the orthonormal discrete cosine transform (DCT-II)."""
    place = np.arange(size)
    matrix = np.cos(np.pi * (2 * place + 1) * place[:, None] / (2 * size)) * np.sqrt(2 / size)
    matrix[0] /= np.sqrt(2)
    return np.asarray(matrix, np.float32)
