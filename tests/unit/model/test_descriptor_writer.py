"""A full disk loses nothing that was written; a picture that has changed is known."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import h5py
import numpy as np
import pytest

from model.descriptor_file import DescriptorFileError, DescriptorReader
from model.descriptor_writer import Source, source_of
from tests.unit.model.test_descriptor_file import extracted, writer

IMAGES = 3000


def append_until_full(path: Path, limit: int) -> str:
    """What is said where files may have `limit` bytes, as on a disk that is full; in a process of
    its own, since it was the process that HDF5 did not leave whole."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        message = "there was room"
        try:
            with writer(path) as out:
                for n in range(len(out.ids), IMAGES):
                    out.append(str(n), extracted(np.random.default_rng(n), 5))
        except DescriptorFileError as error:
            message = str(error)
        os.write(writing, message.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        message = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    return message


@pytest.mark.parametrize("limit", [130_000, 160_123])
def test_a_full_disk_loses_nothing_that_was_written(tmp_path: Path, limit: int) -> None:
    path = tmp_path / "x.h5"
    assert append_until_full(path, limit) == f"{path}: File too large"
    with DescriptorReader(path) as reader:
        before = len(list(reader))
    assert 0 < before < IMAGES
    with writer(path) as out:
        assert len(out.ids) == before
        for n in range(before, before + 3):
            out.append(str(n), extracted(np.random.default_rng(n), 5))
    with DescriptorReader(path) as reader:
        assert list(reader.ids) == [str(n) for n in range(before + 3)]
        for n, (_, image) in enumerate(reader):
            expected = extracted(np.random.default_rng(n), 5)
            np.testing.assert_allclose(image.locals, expected.descriptors, atol=1e-6)


def test_a_disk_that_is_full_from_the_start_leaves_no_file(tmp_path: Path) -> None:
    assert append_until_full(tmp_path / "x.h5", 100) == f"{tmp_path}/x.h5: File too large"
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file_is_begun(tmp_path: Path) -> None:
    (tmp_path / "x.h5").touch()
    with writer(tmp_path / "x.h5") as out:
        assert not out.ids


def test_a_changed_picture_is_described_in_its_place(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    before, after = Source(10, 1), Source(10, 2)
    with writer(tmp_path / "x.h5") as out:
        for name in "abc":
            out.append(name, extracted(rng, 5), before)
    new = extracted(rng, 2)
    with writer(tmp_path / "x.h5") as out:
        assert out.has("b", before)
        assert not out.has("b", after)
        assert not out.has("d", before)
        out.append("b", new, after)
        assert out.has("b", after)
    with DescriptorReader(tmp_path / "x.h5") as reader:
        assert list(reader.ids) == ["a", "b", "c"]
        np.testing.assert_allclose(reader[1].locals, new.descriptors, atol=1e-6)


def test_a_file_of_a_former_version_is_continued(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with writer(tmp_path / "x.h5") as out:
        out.append("a", extracted(rng, 5))
    with h5py.File(tmp_path / "x.h5", "a") as file:
        del file["sources"]
    with writer(tmp_path / "x.h5") as out:
        # Nobody knows which state of the picture it is of.
        assert out.has("a", Source(10, 1))
        out.append("b", extracted(rng, 5), Source(10, 1))
    with writer(tmp_path / "x.h5") as out:
        assert out.has("a", Source(10, 1))
        assert not out.has("b", Source(10, 2))


def test_the_source_of_a_file_changes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    unknown = source_of(path)
    path.write_bytes(b"1")
    first = source_of(path)
    os.utime(path, ns=(5, 5))
    assert len({unknown, first, source_of(path)}) == 3


def test_what_was_forgotten_is_not_there_until_it_is_written_again(tmp_path: Path) -> None:
    path, source = tmp_path / "x.h5", Source(7, 8)
    image = extracted(np.random.default_rng(0), 5)
    with writer(path) as out:
        for name in ("a", "b"):
            out.append(name, image, source)
        out.forget("a")
        assert not out.has("a", source)
        assert out.remembered() == ["b"]
    with writer(path) as out:
        assert not out.has("a", source)
        assert out.remembered() == ["b"]
        out.append("a", image, source)
        assert out.has("a", source)
        assert out.remembered() == ["a", "b"]
    with DescriptorReader(path) as reader:
        assert list(reader.ids) == ["a", "b"]
