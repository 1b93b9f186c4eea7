"""Text files of other systems: byte order marks, line ends, backslashes."""

from __future__ import annotations

import codecs
import os
import threading
from pathlib import Path

import pytest

from model.formats.format_error import FormatError
from model.formats.image_lists import count_images, read_image_list
from model.formats.labels import read_labels
from model.formats.shortlists import count_shortlists, read_shortlists
from model.formats.text import lines_of

ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-32"]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_reader_takes_every_encoding_and_line_end(
    tmp_path: Path, encoding: str, end: str
) -> None:
    path = tmp_path / "x"

    def write(*lines: str) -> Path:
        path.write_bytes(end.join((*lines, "")).encode(encoding))
        return path

    names = read_image_list(write("é/a.jpg,1", "b\x85.jpg,2"))
    assert names.names == ["é/a.jpg", "b\x85.jpg"]
    assert count_images(path) == 2
    labels = read_labels(write("path,label", "a\\b c.jpg,ä", "é.jpg,ö"))
    assert labels.ids == ["a/b=20c.jpg", "=C3=A9.jpg"]
    shortlists = write(
        '{"query": "q", "gallery_ids": ["a"]}', "", '{"query":"r","gallery_ids":["b"]}'
    )
    assert [shortlist.query for shortlist in read_shortlists(shortlists, 10)] == ["q", "r"]
    assert count_shortlists(shortlists) == 2


@pytest.mark.parametrize("separator", [";", "\t"])
def test_spreadsheets_part_columns_by_other_signs(tmp_path: Path, separator: str) -> None:
    path = tmp_path / "labels.csv"
    lines = [("path", "label"), ("a.jpg", '"x\n1,5"'), ("b.jpg", "y")]
    path.write_text("\r\n".join(map(separator.join, lines)))
    assert read_labels(path).classes.tolist() == [0, 1]


@pytest.mark.parametrize(
    "content",
    ["é.jpg,1".encode("latin-1"), codecs.BOM_UTF16_LE + b"a", "é.jpg".encode("utf-16-le")[:-1]],
)
def test_other_encodings_are_said_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(content)
    for reader in (lines_of, read_image_list, read_labels, lambda p: list(read_shortlists(p, 9))):
        with pytest.raises(FormatError, match=r"x\.txt: not a") as caught:
            reader(path)
        assert "\n" not in str(caught.value)


def test_a_pipe_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    os.mkfifo(path)
    feeding = threading.Thread(target=path.write_bytes, args=("a\r\nb".encode("utf-16"),))
    feeding.start()
    assert lines_of(path) == ["a", "b"]
    feeding.join()
