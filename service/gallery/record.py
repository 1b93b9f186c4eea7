"""The stored form of one gallery image: a small versioned binary.

    magic "LOCR" | version u8 | dtype u8 | n u16 | d u16 | g u16 (0: no global) | metadata u16
    | digest 16 bytes | scales n x u8 | descriptors n x d | global g | metadata, JSON

Little-endian. A row of zeros is padding that keeps its place. The digest (BLAKE2b) covers the
collection and id, the header and the payload: a flipped byte, or another image's bytes under this
key, is an error and never a wrong score. It also serves as the record's version: an image that was
replaced has another digest.
"""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from model.descriptors import DescriptorSizes, ImageDescriptors

_MAGIC, _VERSION = b"LOCR", 1
_HEADER = struct.Struct("<4sBBHHHH")
_DIGEST_BYTES = 16
HEADER_BYTES = _HEADER.size + _DIGEST_BYTES
"""A record's first bytes, which tell one version of an image from another."""

_DTYPES = {"float32": 0, "float16": 1}
_DTYPE_OF: dict[int, np.dtype[Any]] = {0: np.dtype("<f4"), 1: np.dtype("<f2")}


class DamagedRecordError(Exception):
    """The bytes under an image's key are not that image's record."""

    def __init__(self, image_id: str, why: str) -> None:
        super().__init__(f"the stored record of image {image_id!r} is damaged: {why}")
        self.image_id = image_id


@dataclass(frozen=True, eq=False)
class GalleryRecord:
    """A gallery image as it is stored and scored."""

    descriptors: ImageDescriptors
    metadata: dict[str, Any] | None = None


def pack_record(collection: str, image_id: str, record: GalleryRecord, dtype: str) -> bytes:
    """`dtype` is float16 or float32. Raises ValueError where a size is over 65,535."""
    image = record.descriptors
    rows, dim = image.locals.shape
    global_dim = 0 if image.global_ is None else image.global_.shape[0]
    metadata = b"" if record.metadata is None else encode_metadata(record.metadata)
    if max(rows, dim, global_dim, len(metadata)) > 0xFFFF:
        raise ValueError(f"image {image_id!r} is too large for a record")
    code = _DTYPES[dtype]
    header = _HEADER.pack(_MAGIC, _VERSION, code, rows, dim, global_dim, len(metadata))
    numbers = _DTYPE_OF[code]
    payload = b"".join(
        (
            image.scales.astype(np.uint8).tobytes(),
            image.locals.astype(numbers).tobytes(),
            b"" if image.global_ is None else image.global_.astype(numbers).tobytes(),
            metadata,
        )
    )
    return header + _digest(collection, image_id, header, payload) + payload


def unpack_record(collection: str, image_id: str, data: bytes) -> GalleryRecord:
    """The arrays are read-only views of `data`. Raises DamagedRecordError."""
    if len(data) < HEADER_BYTES:
        raise DamagedRecordError(image_id, f"only {len(data)} bytes")
    header, payload = data[: _HEADER.size], memoryview(data)[HEADER_BYTES:]
    magic, version, code, rows, dim, global_dim, metadata_bytes = _HEADER.unpack(header)
    if magic != _MAGIC:
        raise DamagedRecordError(image_id, "not a record of this service")
    if version != _VERSION or code not in _DTYPE_OF:
        raise DamagedRecordError(image_id, f"version {version}, number type {code}")
    if data[_HEADER.size : HEADER_BYTES] != _digest(collection, image_id, header, payload):
        raise DamagedRecordError(image_id, "its digest does not match")
    numbers = _DTYPE_OF[code]
    at_locals = rows
    at_global = at_locals + rows * dim * numbers.itemsize
    at_metadata = at_global + global_dim * numbers.itemsize
    scales = np.frombuffer(payload[:at_locals], np.uint8)
    locals_ = np.frombuffer(payload[at_locals:at_global], numbers).reshape(rows, dim)
    global_ = np.frombuffer(payload[at_global:at_metadata], numbers) if global_dim else None
    metadata = json.loads(bytes(payload[at_metadata:])) if metadata_bytes else None
    padding = np.asarray(~locals_.any(axis=1))
    image = ImageDescriptors(locals_, scales, global_, padding if padding.any() else None)
    return GalleryRecord(image, metadata)


def header_sizes(header: bytes) -> DescriptorSizes | None:
    """The sizes of descriptors that a record's header tells; None where there is no record of this
    service."""
    if len(header) < HEADER_BYTES:
        return None
    magic, version, _, _, dim, global_dim, _ = _HEADER.unpack(header[: _HEADER.size])
    return (
        DescriptorSizes(dim, global_dim or None) if (magic, version) == (_MAGIC, _VERSION) else None
    )


def _digest(collection: str, image_id: str, header: bytes, payload: bytes | memoryview) -> bytes:
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    digest.update(f"{collection}\0{image_id}\0".encode())
    digest.update(header)
    digest.update(payload)
    return digest.digest()


def encode_metadata(metadata: dict[str, Any]) -> bytes:
    """As it is stored: its length is what the limit on metadata counts. Raises ValueError for NaN
    and infinities, which JSON does not have, and for text that is not Unicode."""
    return json.dumps(metadata, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
