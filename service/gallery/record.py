"""The stored form of one gallery image: a small versioned binary.

    magic "LOCR" | version u8 | dtype u8 | n u16 | d u16 | g u16 (0: no global) | metadata u16
    | digest 16 bytes | payload

The payload of version 1, where numbers are float32 or float16:

    scales n x u8 | descriptors n x d | global g | metadata, JSON

and of version 2, where they are codes of `model.quantisation`, those of the global always int8:

    padding, a bit a row | scales n x u8 | descriptors n x code | global code | metadata, JSON

Version 3, which is what is written, has either payload, as its number type says.

Little-endian. Padding keeps its place; of numbers it is a row of zeros. The digest covers the
collection and id, the header and the payload: a flipped byte, or another image's bytes under this
key, raises an error instead of giving a wrong score. It also serves as the record's version: an
image that was replaced has another digest. It is BLAKE2b in versions 1 and 2, and XXH3 in version
3, which takes an eighth of the time; nobody needs to be kept from making two images of one digest
on purpose.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_128_digest

from model.descriptors import DescriptorSizes, ImageDescriptors
from model.pooling import pooled
from model.quantisation import CodeType, StoreDtype, decode, encode, row_bytes

DEFAULT_STORE_DTYPE: StoreDtype = "int4"
"""The smallest type that loses at most 0.2 mAP@R in the mean and 0.5 in the worst cell: see
docs/storage.md."""

_MAGIC = b"LOCR"
_HEADER = struct.Struct("<4sBBHHHH")
DIGEST_BYTES = 16
HEADER_BYTES = _HEADER.size + DIGEST_BYTES
"""A record's first bytes; they differ between versions of an image."""

_NUMBERS: Mapping[int, np.dtype[Any]] = {0: np.dtype("<f4"), 1: np.dtype("<f2")}
_CODE_TYPES: Mapping[int, CodeType] = {2: "int8", 3: "int4", 4: "binary"}
_NAMES: Mapping[int, StoreDtype] = {0: "float32", 1: "float16", **_CODE_TYPES}
_OF_VERSION: Mapping[int, Mapping[int, object]] = {1: _NUMBERS, 2: _CODE_TYPES, 3: _NAMES}
_VERSION = 3
_OF_GLOBALS: CodeType = "int8"
"""An image has one global and many locals, and the first stage depends on the global's cosine."""


class DamagedRecordError(Exception):
    """The bytes under an image's key are not that image's record."""

    def __init__(self, image_id: str, why: str) -> None:
        super().__init__(f"the stored record of image {image_id!r} is damaged: {why}")
        self.image_id = image_id


@dataclass(frozen=True, eq=False)
class GalleryRecord:
    """A gallery image as stored and scored; `dtype`: its number type in the store it came from."""

    descriptors: ImageDescriptors
    metadata: dict[str, Any] | None = None
    dtype: StoreDtype | None = None


def pack_record(
    collection: str,
    image_id: str,
    record: GalleryRecord,
    dtype: StoreDtype,
    pool_locals: int | None = None,
) -> bytes:
    """Packs a record, with at most `pool_locals` locals if that is given. Raises ValueError for a
    size above 65,535."""
    image = record.descriptors
    if pool_locals is not None:
        image = pooled(image, pool_locals)
    rows, dim = image.locals.shape
    global_dim = 0 if image.global_ is None else image.global_.shape[0]
    metadata = b"" if record.metadata is None else encode_metadata(record.metadata)
    if max(rows, dim, global_dim, len(metadata)) > 0xFFFF:
        raise ValueError(f"image {image_id!r} is too large for a record")
    code = next(number for number, name in _NAMES.items() if name == dtype)
    header = _HEADER.pack(_MAGIC, _VERSION, code, rows, dim, global_dim, len(metadata))
    packed = _packed_numbers(image, code) if code in _NUMBERS else _packed_codes(image, code)
    payload = packed + metadata
    return header + _digest(_VERSION, collection, image_id, header, payload) + payload


def _packed_numbers(image: ImageDescriptors, code: int) -> bytes:
    numbers = _NUMBERS[code]
    arrays = [image.scales.astype(np.uint8), image.locals.astype(numbers)]
    if image.global_ is not None:
        arrays.append(image.global_.astype(numbers))
    return b"".join(array.tobytes() for array in arrays)


def _packed_codes(image: ImageDescriptors, code: int) -> bytes:
    padding = ~image.locals.any(axis=1)
    arrays = [np.packbits(padding), image.scales.astype(np.uint8)]
    arrays.append(encode(image.locals, _CODE_TYPES[code]))
    if image.global_ is not None:
        arrays.append(encode(image.global_[None], _OF_GLOBALS))
    return b"".join(array.tobytes() for array in arrays)


def unpack_record(collection: str, image_id: str, data: bytes) -> GalleryRecord:
    """Raises DamagedRecordError."""
    return unpack_records(collection, {image_id: data})[image_id]


def unpack_records(collection: str, stored: Mapping[str, bytes]) -> dict[str, GalleryRecord]:
    """Records by id, of any versions and sizes; many at once take less time. Scales, and numbers
    that are no codes, are read-only views of the bytes. Raises DamagedRecordError."""
    records = {i: _checked(collection, i, data) for i, data in stored.items()}
    groups: dict[tuple[int, int, int], list[_Checked]] = {}
    for record in records.values():
        groups.setdefault((record.code, record.dim, record.global_dim), []).append(record)
    images: dict[str, ImageDescriptors] = {}
    for (code, _, _), group in groups.items():
        decoded = map(_numbers, group) if code in _NUMBERS else _decoded(group)
        images.update(zip((record.image_id for record in group), decoded, strict=True))
    return {i: GalleryRecord(images[i], r.metadata(), _NAMES[r.code]) for i, r in records.items()}


def unpack_globals(
    collection: str, stored: Mapping[str, bytes]
) -> dict[str, NDArray[np.float32] | None]:
    """The globals of records alone, None of one that has none. Raises DamagedRecordError."""
    vectors: dict[str, NDArray[np.float32] | None] = {}
    for image_id, data in stored.items():
        record = _checked(collection, image_id, data)
        if not record.global_dim:
            vectors[image_id] = None
        elif record.code in _NUMBERS:
            vectors[image_id] = _global_numbers(record).astype(np.float32)
        else:
            *_, codes = record.of_codes(row_bytes(record.dim, _CODE_TYPES[record.code]))
            vectors[image_id] = decode([codes], record.global_dim, _OF_GLOBALS)[0][0]
    return vectors


class _Checked(NamedTuple):
    """A record whose digest has been checked."""

    image_id: str
    code: int
    rows: int
    dim: int
    global_dim: int
    metadata_bytes: int
    data: bytes

    def of_codes(self, width: int) -> tuple[bytes, bytes, bytes, bytes]:
        """The bits of the padding mask, the scales, the codes of the locals (`width` bytes each)
        and those of the global."""
        at_scales = HEADER_BYTES + -(-self.rows // 8)
        at_locals = at_scales + self.rows
        at_global = at_locals + self.rows * width
        data, end = self.data, at_global + row_bytes(self.global_dim, _OF_GLOBALS)
        return (
            data[HEADER_BYTES:at_scales],
            data[at_scales:at_locals],
            data[at_locals:at_global],
            data[at_global:end],
        )

    def metadata(self) -> dict[str, Any] | None:
        if not self.metadata_bytes:
            return None
        metadata: dict[str, Any] = json.loads(self.data[-self.metadata_bytes :])
        return metadata


def _checked(collection: str, image_id: str, data: bytes) -> _Checked:
    if len(data) < HEADER_BYTES:
        raise DamagedRecordError(image_id, f"only {len(data)} bytes")
    magic, version, code, rows, dim, global_dim, metadata_bytes = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise DamagedRecordError(image_id, "not a record of this service")
    if code not in _OF_VERSION.get(version, {}):
        raise DamagedRecordError(image_id, f"version {version}, number type {code}")
    digest = _digest(version, collection, image_id, data[: _HEADER.size], data[HEADER_BYTES:])
    if data[_HEADER.size : HEADER_BYTES] != digest:
        raise DamagedRecordError(image_id, "its digest does not match")
    return _Checked(image_id, code, rows, dim, global_dim, metadata_bytes, data)


def _numbers(record: _Checked) -> ImageDescriptors:
    numbers, rows, dim = _NUMBERS[record.code], record.rows, record.dim
    scales = np.frombuffer(record.data, np.uint8, rows, HEADER_BYTES)
    locals_ = np.frombuffer(record.data, numbers, rows * dim, HEADER_BYTES + rows)
    locals_ = locals_.reshape(rows, dim)
    global_ = _global_numbers(record) if record.global_dim else None
    padding = np.asarray(~locals_.any(axis=1))
    return ImageDescriptors(locals_, scales, global_, padding if padding.any() else None)


def _global_numbers(record: _Checked) -> NDArray[np.floating]:
    numbers = _NUMBERS[record.code]
    start = HEADER_BYTES + record.rows + record.rows * record.dim * numbers.itemsize
    return np.frombuffer(record.data, numbers, record.global_dim, start)


def _decoded(records: Sequence[_Checked]) -> list[ImageDescriptors]:
    """Decodes records whose codes have one type and the same sizes."""
    code_type, dim, global_dim = _CODE_TYPES[records[0].code], records[0].dim, records[0].global_dim
    width = row_bytes(dim, code_type)
    bits, scales, of_locals, of_globals = zip(*(r.of_codes(width) for r in records), strict=True)
    locals_ = decode(of_locals, dim, code_type)
    globals_: Sequence[NDArray[np.float32] | None] = [None] * len(records)
    if global_dim:
        globals_ = [vector[0] for vector in decode(of_globals, global_dim, _OF_GLOBALS)]
    paddings = [_padding(b, len(s)) if any(b) else None for b, s in zip(bits, scales, strict=True)]
    for own, padding in zip(locals_, paddings, strict=True):
        if padding is not None:
            own[padding] = 0
    own_scales = (np.frombuffer(s, np.uint8) for s in scales)
    return list(map(ImageDescriptors, locals_, own_scales, globals_, paddings))


def _padding(bits: bytes, rows: int) -> NDArray[np.bool_]:
    return np.unpackbits(np.frombuffer(bits, np.uint8), count=rows).astype(bool)


def as_stored(
    images: Mapping[str, ImageDescriptors], dtype: StoreDtype, pool_locals: int | None = None
) -> dict[str, ImageDescriptors]:
    """Images as a gallery returns them after their registration."""
    stored = {
        i: pack_record("", i, GalleryRecord(image), dtype, pool_locals)
        for i, image in images.items()
    }
    return {i: record.descriptors for i, record in unpack_records("", stored).items()}


def header_sizes(header: bytes) -> DescriptorSizes | None:
    """The sizes of descriptors in a record's header; None if it is not a record of this service."""
    if len(header) < HEADER_BYTES:
        return None
    magic, version, _, _, dim, global_dim, _ = _HEADER.unpack_from(header)
    if magic != _MAGIC or version not in _OF_VERSION:
        return None
    return DescriptorSizes(dim, global_dim or None)


def _digest(version: int, collection: str, image_id: str, header: bytes, payload: bytes) -> bytes:
    record = b"".join((f"{collection}\0{image_id}\0".encode(), header, payload))
    if version < _VERSION:
        return hashlib.blake2b(record, digest_size=DIGEST_BYTES).digest()
    return xxh3_128_digest(record)


def encode_metadata(metadata: dict[str, Any]) -> bytes:
    """Metadata as stored; the limit on metadata counts these bytes. Raises ValueError for NaN and
    infinities, which JSON does not have, and for text that is not Unicode."""
    return json.dumps(metadata, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
