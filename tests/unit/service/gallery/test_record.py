"""Records come back as they went in; anything else under a key is an error that names the image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.descriptors import ImageDescriptors
from service.gallery.record import (
    HEADER_BYTES,
    DamagedRecordError,
    GalleryRecord,
    header_sizes,
    pack_record,
    unpack_record,
)
from tests.stored_records import COLLECTION, NAMES, expected, stored_bytes

IDS = st.text("abcXYZ019._:/@=+-", min_size=1, max_size=20)
METADATA = st.none() | st.dictionaries(st.text(max_size=8), st.integers() | st.text(max_size=8))


@st.composite
def records(draw: st.DrawFn) -> GalleryRecord:
    rows, dim, global_dim = (
        draw(st.integers(1, 9)),
        draw(st.integers(1, 9)),
        draw(st.integers(0, 9)),
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    return GalleryRecord(
        ImageDescriptors(
            rng.standard_normal((rows, dim)).astype(np.float32),
            rng.integers(0, 256, rows).astype(np.uint8),
            rng.standard_normal(global_dim).astype(np.float32) if global_dim else None,
        ),
        draw(METADATA),
    )


@given(IDS, records(), st.sampled_from(["float16", "float32"]))
def test_round_trip(image_id: str, record: GalleryRecord, dtype: str) -> None:
    found = unpack_record("c", image_id, pack_record("c", image_id, record, dtype))
    expected, image = record.descriptors, found.descriptors
    np.testing.assert_array_equal(image.locals, expected.locals.astype(dtype))
    np.testing.assert_array_equal(image.scales, expected.scales)
    if expected.global_ is None:
        assert image.global_ is None
    else:
        assert image.global_ is not None
        np.testing.assert_array_equal(image.global_, expected.global_.astype(dtype))
    assert found.metadata == record.metadata


@given(IDS, records(), st.data())
def test_padding_keeps_its_place(image_id: str, record: GalleryRecord, data: st.DataObject) -> None:
    image = record.descriptors
    padding = np.array(
        data.draw(st.lists(st.booleans(), min_size=image.count, max_size=image.count))
    )
    holed = replace(image, locals=image.locals * ~padding[:, None], padding=padding)
    packed = pack_record("c", image_id, GalleryRecord(holed), "float16")
    found = unpack_record("c", image_id, packed).descriptors
    if padding.any():
        np.testing.assert_array_equal(found.padding, padding)
    else:
        assert found.padding is None


@settings(max_examples=20)
@given(IDS, records(), st.integers(1, 255))
def test_any_flipped_byte_is_refused(image_id: str, record: GalleryRecord, flip: int) -> None:
    data = pack_record("c", image_id, record, "float16")
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= flip
        with pytest.raises(DamagedRecordError) as caught:
            unpack_record("c", image_id, bytes(damaged))
        assert caught.value.image_id == image_id


@given(IDS, records(), st.data())
def test_any_other_length_is_refused(
    image_id: str, record: GalleryRecord, data: st.DataObject
) -> None:
    packed = pack_record("c", image_id, record, "float16")
    shorter = data.draw(st.integers(0, len(packed) - 1))
    for changed in (packed[:shorter], packed + b"\0"):
        with pytest.raises(DamagedRecordError):
            unpack_record("c", image_id, changed)


@given(IDS, IDS, records())
def test_another_images_record_is_refused(one: str, other: str, record: GalleryRecord) -> None:
    data = pack_record("c", one, record, "float16")
    if one != other:
        with pytest.raises(DamagedRecordError, match="digest"):
            unpack_record("c", other, data)
    with pytest.raises(DamagedRecordError, match="digest"):
        unpack_record("another", one, data)


@given(records(), records())
def test_the_header_tells_versions_apart(one: GalleryRecord, other: GalleryRecord) -> None:
    first, second = (pack_record("c", "id", record, "float32") for record in (one, other))
    assert (first[:HEADER_BYTES] == second[:HEADER_BYTES]) == (first == second)


def test_foreign_bytes_are_refused() -> None:
    with pytest.raises(DamagedRecordError, match=r"'x'.*not a record"):
        unpack_record("c", "x", b"hello, this is somebody else's value, longer than a header")


@pytest.mark.parametrize("name", NAMES)
def test_a_record_that_an_earlier_version_stored_is_read(name: str) -> None:
    record, wanted = unpack_record(COLLECTION, name, stored_bytes(name)), expected(name)
    image = record.descriptors
    assert image.locals.dtype == wanted.descriptors.locals.dtype
    np.testing.assert_array_equal(image.locals, wanted.descriptors.locals)
    np.testing.assert_array_equal(image.scales, wanted.descriptors.scales)
    np.testing.assert_equal(image.global_, wanted.descriptors.global_)
    assert record.metadata == wanted.metadata
    assert pack_record(COLLECTION, name, record, str(image.locals.dtype)) == stored_bytes(name)


@given(IDS, records(), st.sampled_from(["float16", "float32"]))
def test_a_header_tells_the_sizes(image_id: str, record: GalleryRecord, dtype: str) -> None:
    packed = pack_record("c", image_id, record, dtype)
    assert header_sizes(packed[:HEADER_BYTES]) == record.descriptors.sizes


@pytest.mark.parametrize("data", [b"", b"LOCR", b"somebody else's value, longer than a header"])
def test_what_is_no_header_tells_none(data: bytes) -> None:
    assert header_sizes(data[:HEADER_BYTES]) is None
