"""Records come back as they went in; anything else under a key is an error that names the image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.descriptors import ImageDescriptors
from model.pooling import pooled
from model.quantisation import CODE_TYPES, STORE_DTYPES, CodeType, StoreDtype, encode
from service.gallery.record import (
    HEADER_BYTES,
    DamagedRecordError,
    GalleryRecord,
    as_stored,
    header_sizes,
    pack_record,
    unpack_record,
    unpack_records,
)
from tests.factories import decoded_codes, unit
from tests.stored_records import COLLECTION, NAMES, expected, source, stored_bytes

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


FLOATS: list[StoreDtype] = ["float16", "float32"]


@given(IDS, records(), st.sampled_from(FLOATS))
def test_round_trip(image_id: str, record: GalleryRecord, dtype: StoreDtype) -> None:
    unpacked = unpack_record("c", image_id, pack_record("c", image_id, record, dtype))
    expected, image = record.descriptors, unpacked.descriptors
    np.testing.assert_array_equal(image.locals, expected.locals.astype(dtype))
    np.testing.assert_array_equal(image.scales, expected.scales)
    if expected.global_ is None:
        assert image.global_ is None
    else:
        assert image.global_ is not None
        np.testing.assert_array_equal(image.global_, expected.global_.astype(dtype))
    assert (unpacked.metadata, unpacked.dtype) == (record.metadata, dtype)


@given(IDS, records(), st.sampled_from(CODE_TYPES))
def test_codes_are_those_of_the_descriptors(
    image_id: str, record: GalleryRecord, dtype: CodeType
) -> None:
    unpacked = unpack_record("c", image_id, pack_record("c", image_id, record, dtype))
    expected, image = record.descriptors, unpacked.descriptors
    dim = expected.sizes.local_dim
    decoded = decoded_codes(encode(expected.locals, dtype), dim, dtype)
    np.testing.assert_allclose(image.locals, decoded, atol=1e-6)
    np.testing.assert_array_equal(image.scales, expected.scales)
    if expected.global_ is None:
        assert image.global_ is None
    else:
        assert image.global_ is not None
        direction = expected.global_ / np.linalg.norm(expected.global_)
        np.testing.assert_allclose(image.global_, direction, atol=0.005)
    assert (unpacked.metadata, unpacked.dtype) == (record.metadata, dtype)


@settings(max_examples=20)
@given(st.lists(st.tuples(records(), st.sampled_from(STORE_DTYPES)), max_size=40))
def test_records_of_all_kinds_are_read_together(
    kinds: list[tuple[GalleryRecord, StoreDtype]],
) -> None:
    data = {f"{n}": pack_record("c", f"{n}", r, dtype) for n, (r, dtype) in enumerate(kinds)}
    together = unpack_records("c", data)
    assert list(together) == list(data)
    for image_id, record in together.items():
        alone = unpack_record("c", image_id, data[image_id])
        assert (record.dtype, record.metadata) == (alone.dtype, alone.metadata)
        for one, other in (
            (record.descriptors.locals, alone.descriptors.locals),
            (record.descriptors.scales, alone.descriptors.scales),
            (record.descriptors.global_, alone.descriptors.global_),
        ):
            assert (one is None) == (other is None)
            if one is not None and other is not None:
                np.testing.assert_allclose(one, other, atol=1e-6)


def test_decoded_images_do_not_hold_each_other() -> None:
    """A cache that drops one of a list has its memory back."""
    rng = np.random.default_rng(0)
    image = ImageDescriptors(unit(rng, 4, 8), np.zeros(4, np.uint8), unit(rng, 1, 12)[0])
    data = {f"{n}": pack_record("c", f"{n}", GalleryRecord(image), "int4") for n in range(9)}
    for record in unpack_records("c", data).values():
        for array in (record.descriptors.locals, record.descriptors.global_):
            assert array is not None
            base = array.base
            assert base is None or base.nbytes == array.nbytes


def test_few_locals_are_kept_where_they_are_pooled() -> None:
    rng = np.random.default_rng(0)
    image = ImageDescriptors(unit(rng, 9, 8), np.arange(9, dtype=np.uint8))
    data = pack_record("c", "x", GalleryRecord(image), "float32", 4)
    unpacked = unpack_record("c", "x", data).descriptors
    np.testing.assert_allclose(unpacked.locals, pooled(image, 4).locals, atol=1e-6)
    np.testing.assert_array_equal(
        as_stored({"x": image}, "float32", 4)["x"].locals, unpacked.locals
    )


@given(IDS, records(), st.data())
def test_padding_keeps_its_place(image_id: str, record: GalleryRecord, data: st.DataObject) -> None:
    image = record.descriptors
    padding = np.array(
        data.draw(st.lists(st.booleans(), min_size=image.count, max_size=image.count))
    )
    holed = replace(image, locals=image.locals * ~padding[:, None], padding=padding)
    dtype = data.draw(st.sampled_from(STORE_DTYPES))
    packed = pack_record("c", image_id, GalleryRecord(holed), dtype)
    unpacked = unpack_record("c", image_id, packed).descriptors
    assert (~unpacked.locals.any(axis=1)).tolist() == padding.tolist()
    if padding.any():
        np.testing.assert_array_equal(unpacked.padding, padding)
    else:
        assert unpacked.padding is None


@settings(max_examples=20)
@given(IDS, records(), st.integers(1, 255), st.sampled_from(STORE_DTYPES))
def test_any_flipped_byte_is_refused(
    image_id: str, record: GalleryRecord, flip: int, dtype: StoreDtype
) -> None:
    data = pack_record("c", image_id, record, dtype)
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
    packed = pack_record("c", image_id, record, data.draw(st.sampled_from(STORE_DTYPES)))
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
    record, source_record = unpack_record(COLLECTION, name, stored_bytes(name)), expected(name)
    image = record.descriptors
    assert image.locals.dtype == source_record.descriptors.locals.dtype
    np.testing.assert_allclose(image.locals, source_record.descriptors.locals, atol=1e-6)
    np.testing.assert_array_equal(image.scales, source_record.descriptors.scales)
    np.testing.assert_equal(image.padding, source_record.descriptors.padding)
    assert (image.global_ is None) == (source_record.descriptors.global_ is None)
    if image.global_ is not None and source_record.descriptors.global_ is not None:
        np.testing.assert_allclose(image.global_, source_record.descriptors.global_, atol=1e-6)
    assert (record.metadata, record.dtype) == (source_record.metadata, source_record.dtype)
    packed = pack_record(COLLECTION, name, source(name), source_record.dtype or "int4")
    # Only the digest, and the version that tells which it is, have changed since.
    assert packed[HEADER_BYTES:] == stored_bytes(name)[HEADER_BYTES:]
    if name.endswith("_3"):
        assert packed == stored_bytes(name)


@given(IDS, records(), st.sampled_from(STORE_DTYPES))
def test_a_header_tells_the_sizes(image_id: str, record: GalleryRecord, dtype: StoreDtype) -> None:
    packed = pack_record("c", image_id, record, dtype)
    assert header_sizes(packed[:HEADER_BYTES]) == record.descriptors.sizes


@pytest.mark.parametrize("data", [b"", b"LOCR", b"somebody else's value, longer than a header"])
def test_what_is_no_header_tells_none(data: bytes) -> None:
    assert header_sizes(data[:HEADER_BYTES]) is None
