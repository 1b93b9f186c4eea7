"""The commands on folders, files and outputs as users have them."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from model import hdf5_check
from model.descriptor_file import DescriptorReader
from tests.descriptor_files import write_descriptors, write_endless
from tests.e2e.command import error_of, output_of, run_here
from tests.e2e.service import LOCORE, RunningService

LONG = "shop/" + "a-very-long-name-of-an-article" * 7 + ".jpg"
"""Longer than a terminal is wide."""


def picture(path: Path, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), np.uint8)
    Image.fromarray(values).save(path, path.suffix[1:].replace("jfif", "JPEG"))


def test_what_is_not_read_is_named_and_changes_are_described(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, output = tmp_path / "photos", tmp_path / "out.h5"
    (tmp_path / "elsewhere").mkdir()
    folder.mkdir()
    picture(tmp_path / "elsewhere/a.avif", 0)
    picture(folder / "b.jfif", 1)
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "c.psd").write_bytes(b"8BPS")
    picture(folder / ("商品图" * 10 + ".png"), 2)
    command = ("extract", folder, "-o", output, "--descriptors", 4, "--extractor", "sift")
    text = output_of(capsys, *command)
    assert "c.psd: .psd is not read" in text
    assert "its id would have 274 characters" in text
    assert "2 images written" in text
    assert "2 could not be read" in text
    with DescriptorReader(output) as reader:
        assert list(reader.ids) == ["b.jfif", "linked/a.avif"]
        before = reader[0].locals
    assert "0 images written" in output_of(capsys, *command)
    picture(folder / "b.jfif", 3)
    text = output_of(capsys, *command)
    assert "1 images have changed" in text
    with DescriptorReader(output) as reader:
        assert list(reader.ids) == ["b.jfif", "linked/a.avif"]
        assert abs(reader[0].locals - before).max() > 0.1


def test_a_file_that_the_library_never_ends_on_is_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hdf5_check, "SECONDS", 0.5)
    file = tmp_path / "x.h5"
    write_endless(file)
    for command in (("load", file), ("rerank", file, "--gallery", file)):
        code, out, output = run_here(capsys, *command)
        assert (code, out) == (2, "")
        why = "the HDF5 library does not finish reading it"
        assert output == f"locore: {file}: not a readable HDF5 file ({why})\n"


def test_nothing_done_is_no_success(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.svg").touch()
    code, _, output = run_here(capsys, "extract", tmp_path / "photos", "-o", tmp_path / "out.h5")
    assert code == 2
    assert output.splitlines() == [
        f"left out: {tmp_path}/photos/a.svg: .svg is not read",
        f"locore: no image that can be read in {tmp_path}/photos",
    ]
    assert not (tmp_path / "out.h5").exists()


def test_a_list_of_another_system_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "é").mkdir()
    picture(tmp_path / "é/a.png", 0)
    (tmp_path / "list.txt").write_bytes("é\\a.png\r\n".encode("utf-16"))
    output = tmp_path / "out.h5"
    arguments = ("--relative-to", tmp_path, "--extractor", "sift", "--descriptors", 4)
    output_of(capsys, "extract", "--list", tmp_path / "list.txt", "-o", output, *arguments)
    with DescriptorReader(output) as reader:
        assert list(reader.ids) == ["=C3=A9/a.png"]


def test_ids_that_the_service_does_not_take_are_left_out(
    service: RunningService, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_descriptors(tmp_path / "x.h5", ["a-1", "b" * 274, "c 3", "d-4"])
    arguments = ("load", tmp_path / "x.h5", "--url", service.url, "--collection", "left-out")
    output = output_of(capsys, *arguments)
    assert output.count("left out: ") == 2
    assert "2 images loaded, 0 were there already" in output
    with h5py.File(tmp_path / "x.h5", "a") as file:
        file["ids"][3] = "a-1"
    assert "id 'a-1' occurs twice" in error_of(capsys, *arguments)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_table_is_whole_in_every_encoding(
    service: RunningService,
    tmp_path: Path,
    encoding: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gallery = tmp_path / "gallery.h5"
    write_descriptors(gallery, [LONG, *(f"shop/b-{n}" for n in range(9))])
    at = ("--url", service.url, "--collection", f"table-{encoding}")
    output_of(capsys, "load", gallery, *at)
    write_descriptors(tmp_path / "query.h5", ["b-query"])
    command = ["rerank", f"{tmp_path}/query.h5", "--gallery", str(gallery), *at]

    def written(*arguments: str) -> bytes:
        with io.BytesIO() as buffer, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", io.TextIOWrapper(buffer, encoding))
            patch.setenv("COLUMNS", "60")
            assert run_here(capsys, *command, *arguments) == (0, "", "")
            return buffer.getvalue()

    assert LONG in written().decode(encoding)
    assert len(json.loads(written("--json"))["results"]) == 10


def test_a_table_is_whole_in_a_pipe_of_ascii(
    service: RunningService, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_descriptors(tmp_path / "x.h5", [LONG])
    at = ("--url", service.url, "--collection", "table-of-a-process")
    output_of(capsys, "load", tmp_path / "x.h5", *at)
    command = [LOCORE, "rerank", f"{tmp_path}/x.h5", "--gallery", f"{tmp_path}/x.h5", *at]
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "COLUMNS": "60"}
    process = subprocess.run(command, capture_output=True, env=environment, timeout=110)
    assert (process.returncode, process.stderr) == (0, b"")
    assert LONG in process.stdout.decode("ascii")


def test_output_that_takes_nothing_is_said_in_one_line() -> None:
    with Path("/dev/full").open("wb") as full:
        process = subprocess.run(
            [LOCORE, "openapi"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=110
        )
    assert process.returncode == 2
    assert process.stderr == "locore: [Errno 28] No space left on device\n"
