"""Folders as they are: links, loops, pipes, names of other systems, files of all kinds."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from model.extraction.folders import find_images
from model.image_ids import MAX_ID, image_id
from service.api.schemas import ImageId


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path, "PNG")
    return path


def ids_and_left_out(folder: Path) -> tuple[list[str], list[str]]:
    left_out: list[str] = []
    return list(find_images([folder], report=left_out.append)), left_out


def test_linked_folders_are_followed_and_loops_cut(tmp_path: Path) -> None:
    picture(tmp_path / "elsewhere/a.png")
    album = tmp_path / "album"
    picture(album / "own/b.png")
    (album / "linked").symlink_to(tmp_path / "elsewhere")
    (album / "own/loop").symlink_to(album)
    (album / "again").symlink_to(album / "own")
    (tmp_path / "elsewhere/back").symlink_to(album)
    ids, left_out = ids_and_left_out(album)
    assert ids == ["linked/a.png", "own/b.png"]
    assert sorted(line.split(": ")[0] for line in left_out) == sorted(
        str(album / name) for name in ("own/loop", "again", "linked/back")
    )
    assert all("the same folder as" in line for line in left_out)


def test_of_two_pictures_with_one_id_the_first_counts(tmp_path: Path) -> None:
    first, second = picture(tmp_path / "a/1.png"), picture(tmp_path / "b/1.png")
    other = picture(tmp_path / "b/2.png")
    left_out: list[str] = []
    images = find_images([tmp_path / "a", first, tmp_path / "b"], report=left_out.append)
    assert images == {"1.png": first, "2.png": other}
    assert left_out == [f"{second}: {first} has its id, 1.png"]


def test_pictures_of_all_names_are_read_or_named(tmp_path: Path) -> None:
    readable = ["a.jfif", "b.AVIF", "c.jp2", "d.heic", "download", "photo.png_large"]
    for name in readable:
        picture(tmp_path / name)
    for name in ("raw.NEF", "layers.psd"):
        picture(tmp_path / name)
    (tmp_path / "labels.csv").write_text("path,label\n")
    (tmp_path / "._a.jfif").write_bytes(b"\x00\x05\x16\x07")
    ids, left_out = ids_and_left_out(tmp_path)
    assert ids == readable
    assert sorted(left_out) == [
        f"{tmp_path}/layers.psd: .psd is not read",
        f"{tmp_path}/raw.NEF: .nef is not read",
    ]


def test_what_is_no_file_is_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder.jpg").mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s.jpg"))
        ids, left_out = ids_and_left_out(tmp_path)
    assert ids == []
    assert sorted(left_out) == [
        f"{tmp_path}/gone.jpg: No such file or directory",
        f"{tmp_path}/pipe.jpg: no plain file",
        f"{tmp_path}/s.jpg: no plain file",
    ]


def test_a_name_too_long_for_an_id_is_left_out_alone(tmp_path: Path) -> None:
    picture(tmp_path / ("商品图" * 10 + ".png"))
    picture(tmp_path / "a.png")
    ids, left_out = ids_and_left_out(tmp_path)
    assert ids == ["a.png"]
    (line,) = left_out
    assert line.endswith("its id would have 274 characters, over 256")


def test_names_that_are_no_utf_8_have_ids_that_the_service_takes(tmp_path: Path) -> None:
    picture(tmp_path / os.fsdecode(b"caf\xe9.png"))
    ids, _ = ids_and_left_out(tmp_path)
    assert ids == ["caf=E9.png"]
    assert image_id(Path(ids[0])) == ids[0]


def test_the_longest_id_is_the_services() -> None:
    id_type = TypeAdapter(ImageId)
    assert id_type.validate_python("x" * MAX_ID)
    with pytest.raises(ValidationError):
        id_type.validate_python("x" * (MAX_ID + 1))
