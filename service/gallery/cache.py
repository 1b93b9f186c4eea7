"""Decoded records in memory; the least recently used are dropped first. No I/O, no clock."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from service.gallery.record import GalleryRecord

Key = tuple[str, str]
"""Collection and id."""

ENTRY_OVERHEAD = 512
"""Approximate bytes of an entry in addition to its record."""


@dataclass(slots=True)
class CachedRecord:
    """`version`: the record's header in the store at `checked_at`; `size`: bytes of the decoded
    arrays, or of the stored record if they are views of it, and of what was computed from them;
    `expires`: it may expire at any time."""

    record: GalleryRecord
    version: bytes
    size: int
    checked_at: float
    expires: bool = False

    @property
    def cost(self) -> int:
        return self.size + ENTRY_OVERHEAD


class RecordCache:
    """At most `capacity` bytes."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._entries: OrderedDict[Key, CachedRecord] = OrderedDict()
        self._loads: list[set[Key]] = []
        self.bytes = 0

    @contextmanager
    def loading(self, keys: Iterable[Key]) -> Iterator[set[Key]]:
        """Yields the set of `keys` that are not discarded during the block. The others must not be
        cached: what was loaded may be older than the change that discarded them."""
        valid = set(keys)
        self._loads.append(valid)
        try:
            yield valid
        finally:
            self._loads = [load for load in self._loads if load is not valid]

    def get(self, key: Key) -> CachedRecord | None:
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
        return entry

    def put(self, key: Key, entry: CachedRecord) -> None:
        self._drop(key)
        if entry.cost > self._capacity:
            return
        self._entries[key] = entry
        self.bytes += entry.cost
        while self.bytes > self._capacity:
            _, oldest = self._entries.popitem(last=False)
            self.bytes -= oldest.cost

    def discard(self, key: Key) -> None:
        """Removes the entry, and the key from all current loads."""
        for load in self._loads:
            load.discard(key)
        self._drop(key)

    def _drop(self, key: Key) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.bytes -= entry.cost
