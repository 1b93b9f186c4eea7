"""Decoded records in memory, the least recently used ones dropped first. No I/O, no clock."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from service.gallery.record import GalleryRecord

ENTRY_OVERHEAD = 512
"""Bytes that an entry takes beside its record, about."""


@dataclass(slots=True)
class CachedRecord:
    """`version` is the record's header as the store had it when it was last seen, at `seen`;
    `size`: bytes of the decoded arrays, or of the stored record where they are views of it, and of
    what was made of them."""

    record: GalleryRecord
    version: bytes
    size: int
    seen: float

    @property
    def cost(self) -> int:
        return self.size + ENTRY_OVERHEAD


class RecordCache:
    """At most `capacity` bytes. Keys are (collection, id)."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._entries: OrderedDict[tuple[str, str], CachedRecord] = OrderedDict()
        self.bytes = 0

    def get(self, key: tuple[str, str]) -> CachedRecord | None:
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
        return entry

    def put(self, key: tuple[str, str], entry: CachedRecord) -> None:
        self.discard(key)
        if entry.cost > self._capacity:
            return
        self._entries[key] = entry
        self.bytes += entry.cost
        while self.bytes > self._capacity:
            _, oldest = self._entries.popitem(last=False)
            self.bytes -= oldest.cost

    def discard(self, key: tuple[str, str]) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.bytes -= entry.cost
