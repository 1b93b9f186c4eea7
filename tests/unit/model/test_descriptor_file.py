"""Descriptor files: the AMES layout, continued and read in part."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import h5py
import numpy as np
import pytest

from model.descriptor_file import (
    DescriptorFileError,
    DescriptorReader,
    DescriptorWriter,
    NoDescriptorError,
)
from model.descriptors import ExtractedImage
from tests.factories import unit


def extracted(rng: np.random.Generator, rows: int) -> ExtractedImage:
    return ExtractedImage(
        rng.random((rows, 2), np.float32),
        rng.integers(0, 2, rows).astype(np.uint8),
        np.sort(rng.random(rows, np.float32))[::-1],
        unit(rng, rows, 4),
        unit(rng, 1, 3)[0],
    )


def writer(path: Path, extractor_version: str = "1") -> DescriptorWriter:
    return DescriptorWriter(
        path,
        extractor="made-up",
        extractor_version=extractor_version,
        descriptors_per_image=5,
        descriptor_dim=4,
        global_dim=3,
    )


@pytest.fixture
def two_images(tmp_path: Path) -> tuple[Path, dict[str, ExtractedImage]]:
    rng = np.random.default_rng(0)
    images = {"a/1.jpg": extracted(rng, 5), "b": extracted(rng, 2)}
    path = tmp_path / "x.h5"
    with writer(path) as out:
        for image_id, image in images.items():
            out.append(image_id, image)
    return path, images


def test_images_come_back(two_images: tuple[Path, dict[str, ExtractedImage]]) -> None:
    path, images = two_images
    reader = DescriptorReader(path)
    assert (reader.extractor, reader.extractor_version) == ("made-up", "1")
    assert reader.ids == list(images)
    for image_id, stored_image in reader:
        expected = images[image_id]
        np.testing.assert_allclose(stored_image.locals, expected.descriptors, atol=1e-6)
        np.testing.assert_array_equal(stored_image.scales, expected.scales)
        assert stored_image.global_ is not None
        np.testing.assert_allclose(stored_image.global_, expected.global_, atol=1e-6)
    np.testing.assert_allclose(reader.globals(), [i.global_ for i in images.values()], atol=1e-6)


def test_the_layout_is_that_of_ames(two_images: tuple[Path, dict[str, ExtractedImage]]) -> None:
    path, images = two_images
    with h5py.File(path) as file:
        features = file["features"][:]
    assert features.shape == (2, 5, 5 + 4)
    second = images["b"]
    np.testing.assert_array_equal(features[1, :2, :2], second.keypoints)
    np.testing.assert_array_equal(features[1, :2, 2], second.scales)
    np.testing.assert_array_equal(features[1, :, 3], [0, 0, 1, 1, 1])
    np.testing.assert_array_equal(features[1, :2, 4], second.weights)
    np.testing.assert_array_equal(features[1, :2, 5:], second.descriptors)


def test_a_file_is_continued(two_images: tuple[Path, dict[str, ExtractedImage]]) -> None:
    path, _ = two_images
    with writer(path) as out:
        assert out.ids == {"a/1.jpg", "b"}
        out.append("c", extracted(np.random.default_rng(1), 3))
    assert DescriptorReader(path).ids == ["a/1.jpg", "b", "c"]


def test_versions_of_an_extractor_do_not_mix(
    two_images: tuple[Path, dict[str, ExtractedImage]],
) -> None:
    with pytest.raises(DescriptorFileError, match="another extractor"):
        writer(two_images[0], extractor_version="2")


def test_a_row_that_a_killed_writer_left_does_not_count(
    two_images: tuple[Path, dict[str, ExtractedImage]],
) -> None:
    path, _ = two_images
    with h5py.File(path, "a") as file:
        file["features"].resize(3, axis=0)
    assert len(list(DescriptorReader(path))) == 2


def test_what_a_killed_writer_had_appended_is_there(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    child = os.fork()
    if child == 0:
        rng = np.random.default_rng(0)
        with writer(path) as out:
            for n in range(50):
                out.append(str(n), extracted(rng, 5))
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    with DescriptorReader(path) as reader:
        assert len(list(reader)) == 50
    with writer(path) as out:
        assert len(out.ids) == 50


def test_files_without_ids_and_globals_are_read(tmp_path: Path) -> None:
    features = np.zeros((2, 3, 5 + 4), np.float32)
    features[..., 5] = 2
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["features"] = features
    reader = DescriptorReader(tmp_path / "x.h5")
    assert reader.ids == ["0", "1"]
    assert reader[1].global_ is None
    assert reader[1].locals.tolist() == [[1, 0, 0, 0]] * 3
    with pytest.raises(DescriptorFileError, match="has no `globals`"):
        reader.globals()


def test_padding_among_valid_rows_keeps_its_place(tmp_path: Path) -> None:
    features = np.zeros((1, 4, 5 + 3), np.float32)
    features[0, [0, 2], 5] = 2
    features[0, [1, 3], 3] = 1
    features[0, 2, 2] = 7
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["features"] = features
    (image,) = (stored_image for _, stored_image in DescriptorReader(tmp_path / "x.h5"))
    assert image.locals.tolist() == [[1, 0, 0], [0, 0, 0], [1, 0, 0]]
    assert image.scales.tolist() == [0, 0, 7]
    assert image.padding is not None
    assert image.padding.tolist() == [False, True, False]
    assert image.without_padding().scales.tolist() == [0, 7]


def test_rows_without_leading_columns_are_not_taken_for_others(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with h5py.File(tmp_path / "bare.h5", "w") as file:
        file["features"] = rng.standard_normal((1, 3, 12))
    with pytest.raises(DescriptorFileError, match="five leading columns are not"):
        DescriptorReader(tmp_path / "bare.h5")[0]
    assert DescriptorReader(tmp_path / "bare.h5", descriptor_dim=12)[0].count == 3


def test_an_image_that_could_not_be_read_is_told_from_a_damaged_one(tmp_path: Path) -> None:
    features = np.zeros((1, 2, 5 + 3), np.float32)
    features[..., 3] = 1
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["features"] = features
    with pytest.raises(NoDescriptorError, match="image '0' has no valid descriptor"):
        DescriptorReader(tmp_path / "x.h5")[0]


def test_a_file_that_claims_more_ids_than_bytes_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for name, row in (("features", (1, 5 + 3)), ("ids", ())):
            dtype = h5py.string_dtype() if name == "ids" else np.float32
            file.create_dataset(name, (10**12, *row), dtype, chunks=(1, *row))
    with pytest.raises(DescriptorFileError, match="claims 1000000000000 ids"):
        DescriptorReader(tmp_path / "x.h5")


def test_files_without_leading_columns_and_structured_ones_are_read(tmp_path: Path) -> None:
    descriptors = np.zeros((2, 3, 8), np.float32)
    descriptors[:, :2, 1] = 3
    with h5py.File(tmp_path / "bare.h5", "w") as file:
        file["features"] = descriptors
    with h5py.File(tmp_path / "structured.h5", "w") as file:
        file["descriptor"] = descriptors
        file["metadata"] = np.tile(np.array([0.5, 0.5, 1, 0, 9], np.float32), (2, 3, 1))
        file["metadata"][:, 2, 3] = 1
    with DescriptorReader(tmp_path / "bare.h5", descriptor_dim=8) as bare:
        assert (len(bare), bare.descriptor_dim) == (2, 8)
        assert (bare[1].count, bare[1].scales.tolist()) == (2, [0, 0])
        assert bare.read(1, max_rows=1).count == 1
    with DescriptorReader(tmp_path / "structured.h5") as structured:
        assert (structured.descriptor_dim, structured[0].scales.tolist()) == (8, [1, 1])
        np.testing.assert_array_equal(structured[0].locals, [[0, 1] + [0] * 6] * 2)
    with h5py.File(tmp_path / "structured.h5", "a") as file:
        del file["metadata"]
        file["metadata"] = np.zeros((2, 2, 5), np.float32)
    with pytest.raises(DescriptorFileError, match="`metadata` is"):
        DescriptorReader(tmp_path / "structured.h5")


@pytest.mark.parametrize(
    "problem", ["missing", "text", "truncated", "empty", "flat", "nan", "masked"]
)
def test_bad_files_are_refused_in_one_line(
    two_images: tuple[Path, dict[str, ExtractedImage]], problem: str
) -> None:
    path, _ = two_images
    if problem == "missing":
        path.unlink()
    elif problem == "text":
        path.write_text("not HDF5")
    elif problem == "truncated":
        path.write_bytes(path.read_bytes()[:1000])
    else:
        with h5py.File(path, "a") as file:
            features = file["features"][:]
            del file["features"]
            if problem == "flat":
                file["features"] = features[0]
            elif problem == "nan":
                features[0, 0, 6] = np.nan
                file["features"] = features
            elif problem == "masked":
                features[0, :, 3] = 1
                file["features"] = features
    with pytest.raises(DescriptorFileError, match=r"x\.h5: ") as caught:
        list(DescriptorReader(path))
    assert "\n" not in str(caught.value)
