"""A folder becomes a task by its CSV, its sub-folders or views, and what does not count is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.evaluation.own_pictures import OwnPictures, own_labels, own_pictures
from model.extraction.images import UnreadableImageError
from model.formats.format_error import FormatError
from tests.own_folders import write_folders, write_picture


def query_names(pictures: OwnPictures, names: list[str], queries: int = 100) -> list[str]:
    images = own_labels(pictures, names, queries)
    return [name for name, asks in zip(images.ids, images.is_query, strict=True) if asks]


def test_sub_folders_are_labels(tmp_path: Path) -> None:
    ids = write_folders(tmp_path, 3, 4)
    write_picture(tmp_path / "loose.png", 99)
    write_picture(tmp_path / "d" / "d-0.png", 98)
    own = own_pictures(tmp_path)
    assert list(own.files) == [*ids, "d/d-0.png"]
    assert own.notes == ("left out: loose.png in no sub-folder, so without a label",)
    assert (own.views, own.task) == (0, "a picture asks for those of its sub-folder")
    # Every third of a label asks; a label's only picture is for others not to be taken for.
    assert query_names(own, list(own.files)) == [f"{c}/{c}-{n}.png" for c in "abc" for n in (0, 3)]
    images = own_labels(own, list(own.files), 100)
    assert "d/d-0.png" in images.ids
    assert own.picture("a/a-1.png").size == (36, 28)


def test_a_csv_comes_before_sub_folders(tmp_path: Path) -> None:
    ids = write_folders(tmp_path, 2, 4)
    (tmp_path / "a" / "a-0.png").rename(tmp_path / "a" / "of one word.png")
    rows = ["a/of one word.png,cat,query", "./a/a-1.png,cat,gallery", "a/a-2.png,dog,query"]
    rows += ["b/b-0.png,dog,gallery", "gone.png,dog,gallery", "away.png,dog,gallery"]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label,role", *rows]))
    own = own_pictures(tmp_path)
    assert list(own.files) == ["a/of=20one=20word.png", "a/a-1.png", *ids[2:3], "b/b-0.png"]
    absent, unlabelled = own.notes
    assert absent.startswith("left out: 2 pictures, gone.png for one, in ")
    assert absent.endswith("but not in the folder")
    assert unlabelled.startswith("left out: 4 pictures, a/a-3.png for one, not in ")
    assert own.task == "a picture asks for those of its label of labels.csv"
    assert query_names(own, list(own.files)) == ["a/of=20one=20word.png", "a/a-2.png"]
    # One elsewhere, by name.
    other = tmp_path.with_name("other.csv")
    other.write_text("path,label\na/a-1.png,1\na/a-2.png,1\nb/b-0.png,2\nb/b-1.png,2\n")
    own = own_pictures(tmp_path, other)
    assert (own.labels_file, len(own.files)) == (other, 4)
    assert own_pictures(tmp_path, views=True).labels is None


def test_without_labels_views_find_each_other(tmp_path: Path) -> None:
    for n in range(4):
        write_picture(tmp_path / f"{n}.png", n)
    own = own_pictures(tmp_path)
    assert (own.labels, own.views, own.notes) == (None, 3, ())
    described = [f"{n}.png@{view}" for n in range(4) for view in range(3)]
    # Of a picture that is not in the folder any more there may be descriptors still.
    images = own_labels(own, [*described, "gone.png@0", "gone.png@1"], 100)
    assert images.ids == described
    assert query_names(own, described) == [f"{n}.png@1" for n in range(4)]
    view = own.picture("2.png@1")
    assert view.size != (36, 28)
    assert view.tobytes() == own.picture("2.png@1").tobytes()


def test_large_folders_are_judged_in_part(tmp_path: Path) -> None:
    write_folders(tmp_path, 8, 6)
    own = own_pictures(tmp_path, max_pictures=12)
    assert own.labels is not None
    assert 12 <= len(own.files) < 16
    # Whole labels as far as that goes: three pictures of each at the least.
    assert {len([n for n in own.files if n[0] == c]) for c in "abcdefgh"} == {0, 3}
    assert own.notes == (f"{len(own.files)} of 48 labelled pictures are judged",)
    assert own_pictures(tmp_path, max_pictures=12).files == own.files
    everything = own_pictures(tmp_path)
    assert len(query_names(everything, list(everything.files))) == 16
    some = query_names(everything, list(everything.files), queries=5)
    assert len(some) == 5
    # Of labels at both ends: they are evenly chosen.
    assert (some[0][0], some[-1][0]) == ("a", "h")
    views = own_pictures(tmp_path, views=True, max_pictures=12)
    assert len(views.files) == 4
    assert views.notes == ("4 of 48 pictures are judged",)


def test_pictures_that_could_not_be_described_do_not_count(tmp_path: Path) -> None:
    write_folders(tmp_path, 2, 4)
    own = own_pictures(tmp_path)
    assert query_names(own, ["a/a-0.png", "a/a-1.png", "b/b-3.png", "b/b-2.png", "other.png"]) == [
        "a/a-0.png",
        "b/b-3.png",
    ]
    with pytest.raises(FormatError, match=r"1 label that can be judged, .* or --views"):
        own_labels(own, ["a/a-0.png", "a/a-1.png"], 100)
    with pytest.raises(FormatError, match="1 picture that has another of its label to ask for"):
        own_labels(own, ["a/a-0.png", "a/a-1.png", "b/b-0.png"], 100)


def test_where_nothing_can_be_judged_it_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    with pytest.raises(FormatError, match="has no pictures"):
        own_pictures(folder)
    with pytest.raises(UnreadableImageError, match="no such file"):
        own_pictures(folder / "none")
    write_folders(folder, 1, 4)
    with pytest.raises(FormatError, match="1 label that can be judged"):
        own_pictures(folder)
    labels = folder / "labels.csv"
    labels.write_text("path,label\nx.png,1\ny.png,2\n")
    with pytest.raises(FormatError, match=r"none of its pictures .* x\.png for one"):
        own_pictures(folder)
    labels.write_text("path,label\na/a-0.png,1\n./a/a-0.png,2\n")
    with pytest.raises(FormatError, match="named twice"):
        own_pictures(folder)
    with pytest.raises(FormatError, match="no such file"):
        own_pictures(folder, folder / "none.csv")
    one = tmp_path / "one"
    write_picture(one / "1.png", 1)
    with pytest.raises(FormatError, match="1 picture that can be judged, but at least two"):
        own_labels(own_pictures(one), ["1.png@0", "1.png@1"], 100)
