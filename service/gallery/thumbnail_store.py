"""Thumbnails of gallery images, beside the records, under keys of their own.

    digest of the record 16 bytes | n u16 | keypoints n x 2 x u8 | WebP

A thumbnail belongs to one version of its record. If the record was replaced or deleted, the
thumbnail does not count. So registrations neither wait for thumbnails nor fail because of them.
Their total size has a limit. Their bytes are counted by generation (keys.py) and summed in
`locore:thumbnails`, a hash of bytes by generation.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import structlog
from numpy.typing import NDArray

from service.api.errors import StoreFullError, StoreUnavailableError
from service.gallery import commands
from service.gallery.commands import Command
from service.gallery.keys import change_keys, image_key, thumbnail_key
from service.gallery.record import DIGEST_BYTES, HEADER_BYTES
from service.gallery.store import GalleryStore
from service.watch.metrics import THUMBNAIL_BYTES, THUMBNAILS

log = structlog.get_logger(__name__)

_SUMS = "locore:thumbnails"
_COUNT = struct.Struct("<H")
_STEPS = 255
_RECOUNT_SECONDS = 60
"""Expired and deleted thumbnails are counted for at most this time."""


@dataclass(frozen=True, eq=False)
class Thumbnail:
    """`keypoints` (n, 2): x and y of each stored local, as fractions of width and height; None if
    they are unknown."""

    webp: bytes
    keypoints: NDArray[np.float32] | None = None


class Thumbnails:
    """At most `max_bytes` over all collections (concurrent registrations may exceed it a little);
    0 stores none."""

    def __init__(
        self,
        store: GalleryStore,
        max_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._max_bytes = max_bytes
        self._clock = clock
        self._recounted = -float(_RECOUNT_SECONDS)
        self._refusing = False

    async def put(
        self,
        generation: str,
        headers: Mapping[str, bytes],
        thumbnails: Mapping[str, Thumbnail],
        ttl_seconds: int | None,
    ) -> None:
        """Stores thumbnails of images whose records, with these `headers`, were just stored. An
        image without a new thumbnail loses its former one. If there is no room, this is only
        logged."""
        try:
            await self._put(generation, headers, thumbnails, ttl_seconds)
        except (StoreFullError, StoreUnavailableError) as error:
            THUMBNAILS.labels("refused").inc(len(thumbnails))
            self._note_refusal(str(error) if thumbnails else None)

    async def _put(
        self,
        generation: str,
        headers: Mapping[str, bytes],
        thumbnails: Mapping[str, Thumbnail],
        ttl_seconds: int | None,
    ) -> None:
        key, _ = change_keys(generation)
        batch: list[Command] = [("HMGET", key, *headers), ("HVALS", _SUMS)]
        lengths, sums = await self._store.answers("thumbnails", batch)
        before = {i: int(size) for i, size in zip(headers, lengths, strict=True) if size}
        if not thumbnails and not before:
            return
        packed = {i: _packed(headers[i], of_image) for i, of_image in thumbnails.items()}
        needed = sum(map(len, packed.values())) - sum(before.values())
        total = sum(map(int, sums))
        if total + needed > self._max_bytes:
            total = await self._recount(total)
        selection = _fitting(packed, self._max_bytes - total + sum(before.values()))
        sizes = {i: len(selection.get(i, b"")) for i in headers if i in selection or i in before}
        if sizes:
            await self._write(generation, selection, sizes, ttl_seconds)
        THUMBNAIL_BYTES.set(total - sum(before.values()) + sum(sizes.values()))
        THUMBNAILS.labels("kept").inc(len(selection))
        THUMBNAILS.labels("refused").inc(len(packed) - len(selection))
        if thumbnails:
            full = f"they have {self._max_bytes} bytes at most"
            self._note_refusal(full if len(selection) < len(packed) else None)

    async def _write(
        self,
        generation: str,
        selection: Mapping[str, bytes],
        sizes: Mapping[str, int],
        ttl_seconds: int | None,
    ) -> None:
        # Counted first: uncounted thumbnails would never be removed.
        counting = commands.note_thumbnails(generation, sizes)
        (of_generation,) = await self._store.answers("thumbnails", [counting])
        await self._store.answers(
            "thumbnails",
            [
                ("HSET", _SUMS, generation, of_generation),
                *(
                    commands.set_record(thumbnail_key(generation, i), selection[i], ttl_seconds)
                    if i in selection
                    else ("DEL", thumbnail_key(generation, i))
                    for i in sizes
                ),
            ],
        )

    async def get(self, generation: str, image_id: str) -> Thumbnail | None:
        batch: list[Command] = [
            ("GET", thumbnail_key(generation, image_id)),
            ("GETRANGE", image_key(generation, image_id), 0, HEADER_BYTES - 1),
        ]
        data, header = await self._store.answers("thumbnails", batch)
        return None if data is None else _unpacked(data, header)

    async def of(self, generation: str, ids: Sequence[str]) -> set[str]:
        """Those of `ids` that have a thumbnail."""
        if not ids:
            return set()
        key, _ = change_keys(generation)
        (lengths,) = await self._store.answers("thumbnails", [("HMGET", key, *ids)])
        return {i for i, size in zip(ids, lengths, strict=True) if size}

    async def _recount(self, otherwise: int) -> int:
        """Bytes of all thumbnails, without expired and deleted ones; `otherwise` if the last
        recount is recent."""
        if self._clock() - self._recounted < _RECOUNT_SECONDS:
            return otherwise
        self._recounted = self._clock()
        (names,) = await self._store.answers("thumbnails", [("HKEYS", _SUMS)])
        generations = [name.decode() for name in names]
        batch = [
            command
            for name in generations
            for command in (
                commands.expire(name),
                ("HGET", change_keys(name)[0], ""),
            )
        ]
        answers = await self._store.answers("thumbnails", batch)
        sums = {n: int(size or 0) for n, size in zip(generations, answers[1::2], strict=True)}
        await self._store.answers(
            "thumbnails",
            [("HSET", _SUMS, n, s) if s else ("HDEL", _SUMS, n) for n, s in sums.items()],
        )
        THUMBNAIL_BYTES.set(sum(sums.values()))
        return sum(sums.values())

    def _note_refusal(self, why: str | None) -> None:
        """Logs one line when refusals begin."""
        if why is not None and not self._refusing:
            log.warning("thumbnails_not_kept", why=why)
        self._refusing = why is not None


def _fitting(packed: Mapping[str, bytes], room: int) -> dict[str, bytes]:
    selection = {}
    for image_id, data in packed.items():
        if len(data) <= room:
            selection[image_id] = data
            room -= len(data)
    return selection


def _packed(header: bytes, thumbnail: Thumbnail) -> bytes:
    points = thumbnail.keypoints
    steps = np.empty((0, 2)) if points is None else np.clip(points, 0, 1) * _STEPS
    places = np.rint(steps).astype(np.uint8).tobytes()
    return header[-DIGEST_BYTES:] + _COUNT.pack(len(steps)) + places + thumbnail.webp


def _unpacked(data: bytes, header: bytes) -> Thumbnail | None:
    """None if it does not belong to the record with this `header`."""
    start = DIGEST_BYTES + _COUNT.size
    if len(header) < HEADER_BYTES or data[:DIGEST_BYTES] != header[-DIGEST_BYTES:]:
        return None
    (count,) = _COUNT.unpack_from(data, DIGEST_BYTES)
    if not count:
        return Thumbnail(data[start:])
    places = np.frombuffer(data, np.uint8, 2 * count, offset=start).reshape(count, 2)
    keypoints = np.divide(places, _STEPS, dtype=np.float32)
    return Thumbnail(data[start + 2 * count :], keypoints)
