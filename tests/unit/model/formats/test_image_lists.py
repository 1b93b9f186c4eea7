from __future__ import annotations

from pathlib import Path

import pytest

from model.formats.format_error import FormatError
from model.formats.image_lists import count_images, read_image_list


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "test_gallery.txt"
    path.write_text(text)
    return path


def test_names_labels_and_sizes_are_read(tmp_path: Path) -> None:
    path = written(tmp_path, "a/b.jpg,7,640,480\nc d.jpg,-1,3,4")
    image_list = read_image_list(path)
    assert image_list.names == ["a/b.jpg", "c d.jpg"]
    assert image_list.labels is not None
    assert image_list.sizes is not None
    assert image_list.labels.tolist() == [7, -1]
    assert image_list.sizes.tolist() == [[640, 480], [3, 4]]
    assert count_images(path) == 2


def test_what_a_list_does_not_have_is_none(tmp_path: Path) -> None:
    names = read_image_list(written(tmp_path, "a.jpg\nb.jpg\n"))
    assert (names.names, names.labels, names.sizes) == (["a.jpg", "b.jpg"], None, None)
    labelled = read_image_list(written(tmp_path, "a.jpg,3\n"))
    assert labelled.labels is not None
    assert (labelled.labels.tolist(), labelled.sizes) == ([3], None)
    sized = read_image_list(written(tmp_path, "a.jpg,640,480\n"))
    assert sized.sizes is not None
    assert (sized.labels, sized.sizes.tolist()) == (None, [[640, 480]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.jpg,1,2,3\nb.jpg\n", "line 2 has 1 fields, the first line 4"),
        ("a.jpg,1,2,3,4\n", "line 1 is not"),
        ("a.jpg,1,2,3\nb.jpg,x,2,3\n", "line 2: label or size is no number"),
        (",1,2,3\n", "line 1 is not"),
        ("a.jpg\n\nb.jpg\n", "line 2 is not"),
        ("", "names no image"),
        ("a.jpg,99999999999999999999\n", "a label or size is too large"),
    ],
)
def test_a_line_that_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(FormatError) as caught:
        read_image_list(path)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_blank_lines_at_the_end_are_no_images(tmp_path: Path) -> None:
    path = written(tmp_path, "a.jpg\nb.jpg\n\n")
    assert read_image_list(path).names == ["a.jpg", "b.jpg"]
    assert count_images(path) == 2


def test_files_that_are_no_text_are_said(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FormatError, match="not a text file"):
        read_image_list(path)
    with pytest.raises(FormatError, match="no such file"):
        count_images(tmp_path / "none.txt")
