"""Descriptor files that others made: AMES's records, joined files, strings of other systems."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from model.descriptor_file import DescriptorFileError, DescriptorReader
from tests.descriptor_files import write_descriptors
from tests.unit.model.test_descriptor_file import writer

RECORD = np.dtype([("metadata", "<f4", (3, 5)), ("descriptor", "<f2", (3, 8))])


def records(path: Path, seed: int, images: int = 2) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    rng = np.random.default_rng(seed)
    values = np.zeros(images, RECORD)
    values["descriptor"] = rng.standard_normal((images, 3, 8))
    values["metadata"][..., 2] = seed
    values["metadata"][:, 2, 3] = 1
    with h5py.File(path, "w") as file:
        file["features"] = values
    return values


def joined(path: Path, shards: list[Path], names: tuple[str, ...]) -> None:
    with h5py.File(path, "w") as file:
        for name in names:
            with h5py.File(shards[0]) as first:
                shape, dtype = first[name].shape, first[name].dtype
            layout = h5py.VirtualLayout((shape[0] * len(shards), *shape[1:]), dtype)
            for at, shard in enumerate(shards):
                source = h5py.VirtualSource(shard.name, name, shape, dtype)
                layout[at * shape[0] : (at + 1) * shape[0]] = source
            file.create_virtual_dataset(name, layout)


@pytest.mark.parametrize("virtual", [False, True])
def test_records_are_read(tmp_path: Path, virtual: bool) -> None:
    first, second = (records(tmp_path / f"{n}.h5", n) for n in (1, 2))
    path, expected = tmp_path / "1.h5", first
    if virtual:
        path = tmp_path / "joined.h5"
        joined(path, [tmp_path / "1.h5", tmp_path / "2.h5"], ("features",))
        expected = np.concatenate((first, second))
    with DescriptorReader(path) as reader:
        assert (len(reader), reader.descriptor_dim, reader.descriptors_per_image) == (
            len(expected),
            8,
            3,
        )
        for place, (_, image) in enumerate(reader):
            rows = expected["descriptor"][place, :2].astype(np.float32)
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            np.testing.assert_allclose(image.locals, rows, atol=1e-6)
            assert image.scales.tolist() == [1 + place // 2] * 2
        assert reader.read(0, max_rows=1).count == 1
        assert reader.keypoints(0).shape == (3, 2)


@pytest.mark.parametrize(
    "dtype",
    [
        [("metadata", "f4", (3, 5))],
        [("metadata", "f4", (3, 4)), ("descriptor", "f4", (3, 8))],
        [("metadata", "f4", (2, 5)), ("descriptor", "f4", (3, 8))],
        [("metadata", "f4", (3, 5)), ("descriptor", "S3", (3, 8))],
        [("metadata", "f4", (3, 5)), ("descriptor", "f4")],
    ],
)
def test_other_records_are_refused(tmp_path: Path, dtype: object) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["features"] = np.zeros(2, dtype)  # type: ignore[call-overload]
    with pytest.raises(DescriptorFileError, match="records of `features` are not"):
        DescriptorReader(tmp_path / "x.h5")


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{n}.h5" for n in range(2)]
    for path in paths:
        # So many that the small file that joins them has fewer bytes than ids.
        write_descriptors(path, [f"{path.stem}/{n}" for n in range(2)], sizes=(8, 4))
    return paths


def many_ids(path: Path, count: int = 6000) -> None:
    with h5py.File(path, "w") as file:
        file["features"] = np.ones((count, 1, 7), np.float32)
        file["features"][:, :, 3] = 0
        file["globals"] = np.ones((count, 2), np.float32)
        file["ids"] = np.array([f"{path.stem}/{n}".encode() for n in range(count)])


def test_files_joined_with_ids_are_read(tmp_path: Path) -> None:
    paths = [tmp_path / f"{n}.h5" for n in range(2)]
    for path in paths:
        many_ids(path)
    joined(tmp_path / "vds.h5", paths, ("features", "globals", "ids"))
    joined(tmp_path / "nested.h5", [tmp_path / "vds.h5"], ("features", "globals", "ids"))
    for name in ("vds", "nested"):
        with DescriptorReader(tmp_path / f"{name}.h5") as reader:
            assert (len(reader), reader.ids[-1]) == (12_000, "1/5999")
            assert reader[11_999].count == 1
    with h5py.File(tmp_path / "ext.h5", "w") as file:
        for name in ("features", "globals", "ids"):
            file[name] = h5py.ExternalLink("1.h5", name)
    with DescriptorReader(tmp_path / "ext.h5") as reader:
        assert (len(reader), reader.ids[0]) == (6000, "1/0")
    paths[0].unlink()
    with pytest.raises(DescriptorFileError, match=r"vds\.h5: joined of 0\.h5, which is not there"):
        DescriptorReader(tmp_path / "vds.h5")
    paths[1].unlink()
    with pytest.raises(DescriptorFileError, match=r"`features` of 1\.h5, which is not there"):
        DescriptorReader(tmp_path / "ext.h5")


def test_a_joined_file_is_not_continued(tmp_path: Path) -> None:
    with writer(tmp_path / "0.h5"):
        pass
    with h5py.File(tmp_path / "ext.h5", "w") as file:
        for name in ("features", "globals", "ids"):
            file[name] = h5py.ExternalLink("0.h5", name)
        file.attrs.update({"extractor": "made-up", "extractor_version": "1"})
    with pytest.raises(DescriptorFileError, match="joined of other files"):
        writer(tmp_path / "ext.h5")


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (np.array([b"a", b"bcd"]), ["a", "bcd"]),
        (np.array([b"caf\xe9", b"b"]), ["caf=E9", "b"]),
        (np.array(["é".encode(), b"b"]), ["é", "b"]),
        (np.array([7, 12]), ["7", "12"]),
    ],
)
def test_ids_of_other_systems_are_read(
    tmp_path: Path, ids: np.ndarray[tuple[int], np.dtype[np.generic]], expected: list[str]
) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["features"] = np.ones((2, 1, 7), np.float32)
        file["ids"] = ids
        file.attrs["extractor"] = np.array([b"sift\xe9"])
        file.attrs["extractor_version"] = np.bytes_(b"2")
    with DescriptorReader(tmp_path / "x.h5") as reader:
        assert list(reader.ids) == expected
        assert (reader.extractor, reader.extractor_version) == ("sift=E9", "2")


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (np.array([b"a", b"a"]), "id 'a' occurs twice"),
        (np.array([0.5, 1]), "`ids` are no strings"),
        (np.array([[b"a"], [b"b"]]), "`ids` is no dataset of 1 dimension"),
    ],
)
def test_ids_that_are_none_are_said(
    tmp_path: Path, ids: np.ndarray[tuple[int], np.dtype[np.generic]], message: str
) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["features"] = np.ones((2, 1, 7), np.float32)
        file["ids"] = ids
    with pytest.raises(DescriptorFileError, match=message):
        DescriptorReader(tmp_path / "x.h5")


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.h5")
    for opening in (DescriptorReader, writer):
        with pytest.raises(DescriptorFileError, match=r"x\.h5: no plain file"):
            opening(tmp_path / "x.h5")
