from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from model.descriptors import ImageDescriptors
from service.gallery.cache import ENTRY_OVERHEAD, CachedRecord, RecordCache
from service.gallery.record import GalleryRecord

RECORD = GalleryRecord(ImageDescriptors(np.ones((1, 1)), np.zeros(1, np.uint8)))


def entry(size: int) -> CachedRecord:
    return CachedRecord(RECORD, b"version", size, 0.0)


def test_the_least_recently_used_goes_first() -> None:
    cache = RecordCache(2 * (ENTRY_OVERHEAD + 10))
    cache.put(("c", "a"), entry(10))
    cache.put(("c", "b"), entry(10))
    cache.get(("c", "a"))
    cache.put(("c", "new"), entry(10))
    assert [cache.get(("c", name)) is not None for name in ("a", "b", "new")] == [True, False, True]


def test_what_is_too_large_is_not_kept() -> None:
    cache = RecordCache(1000)
    cache.put(("c", "small"), entry(1))
    cache.put(("c", "huge"), entry(1000))
    assert cache.get(("c", "huge")) is None
    assert cache.get(("c", "small")) is not None


@given(
    st.integers(0, 4000),
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3000), st.booleans()), max_size=40),
)
def test_it_never_holds_more_than_it_may(
    capacity: int, events: list[tuple[int, int, bool]]
) -> None:
    cache = RecordCache(capacity)
    for name, size, discard in events:
        key = ("c", str(name))
        if discard:
            cache.discard(key)
        else:
            cache.put(key, entry(size))
        window_of_lists = [cache.get(("c", str(n))) for n in range(6)]
        assert cache.bytes == sum(entry.cost for entry in window_of_lists if entry is not None)
        assert cache.bytes <= capacity
