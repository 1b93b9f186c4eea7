"""Labels come from a CSV or from sub-folders, and what is wrong with them is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model.formats.format_error import FormatError
from model.formats.labels import (
    LabelledImages,
    labels_of_folders,
    labels_of_views,
    read_labels,
)


def written(folder: Path, text: str) -> Path:
    path = folder / "labels.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_paths_labels_and_roles(tmp_path: Path) -> None:
    text = "path,label,role\na/1.jpg,cat,query\na/2.jpg,cat,gallery\nb/1.jpg,ape,gallery\n"
    path = written(tmp_path, text)
    for labelled_images in (read_labels(path), read_labels(tmp_path)):
        assert labelled_images.ids == ["a/1.jpg", "a/2.jpg", "b/1.jpg"]
        assert labelled_images.classes.tolist() == [1, 1, 0]
        assert labelled_images.is_query.tolist() == [True, False, False]
        assert labelled_images.groups is None


def test_a_spreadsheets_file_and_more_columns_are_read(tmp_path: Path) -> None:
    text = '\ufeffrole,note,path,label\r\nquery,"a, b",x.jpg,"cat, big"\r\ngallery,,y.jpg,dog\r\n'
    labelled_images = read_labels(written(tmp_path, text))
    assert labelled_images.ids == ["x.jpg", "y.jpg"]
    assert labelled_images.is_query.tolist() == [True, False]


def test_the_grocery_layout(tmp_path: Path) -> None:
    """Classes keep their numbers; the test split asks."""
    text = "path,class_id,coarse_class_id,class_name,source_split\n"
    text += "test/1.jpg,40,0,x,test\ntrain/1.jpg,40,0,x,train\nval/1.jpg,7,0,y,val\n"
    labelled_images = read_labels(written(tmp_path, text))
    assert labelled_images.classes.tolist() == [40, 40, 7]
    assert labelled_images.is_query.tolist() == [True, False, False]


def test_without_roles_every_third_image_of_a_label_is_a_query(tmp_path: Path) -> None:
    rows = [f"{label}{n}.jpg,{label}" for n in range(7) for label in ("a", "b")]
    labelled_images = read_labels(written(tmp_path, "\n".join(["path,label", *rows]) + "\n"))
    for label in (0, 1):
        is_query = labelled_images.is_query[labelled_images.classes == label]
        assert is_query.tolist() == [True, False, False, True, False, False, True]


def test_numbers_too_long_for_a_number_are_names(tmp_path: Path) -> None:
    long = "9" * 30
    labelled_images = read_labels(written(tmp_path, f"path,label\na,{long}\nb,{long}\nc,7\n"))
    assert labelled_images.classes.tolist() == [1, 1, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,label\nx,1\n", "needs columns path and label, has name, label"),
        ("path,role\nx,query\n", "needs columns path and label"),
        ("", "needs columns path and label"),
        ("path,label\n", "names no image"),
        ("path,label,role\nx,1,asker\n", "role 'asker' is neither query nor gallery"),
        ("path,label,role\nx,1\n", "role None is neither query nor gallery"),
        ("path,label\nx,1\ny\n", "a row without a path or a label"),
        ("path,label\n,1\n", "a row without a path or a label"),
        ("path,label\nx,1\ny,2\nx,3\n", "x is named twice"),
        ('path,label\n"x,' + "1" * 200_000 + "\n", "not a readable CSV file"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(FormatError, match=message) as error:
        read_labels(path)
    assert str(error.value).startswith(f"{path}: ")


def test_files_that_are_none_are_said(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"labels\.csv: no such file"):
        read_labels(tmp_path)
    (tmp_path / "labels.csv").write_bytes(b"path,label\n\xff\xfe,1\n")
    with pytest.raises(FormatError, match="not a readable CSV file"):
        read_labels(tmp_path)


def test_sub_folders_are_labels() -> None:
    labelled_images = labels_of_folders(["cat/1.jpg", "train/cat/2.jpg", "ape/1.jpg"], Path("x"))
    assert labelled_images.ids == ["cat/1.jpg", "train/cat/2.jpg", "ape/1.jpg"]
    assert labelled_images.classes.tolist() == [1, 1, 0]
    assert labelled_images.is_query.tolist() == [True, False, True]
    with pytest.raises(FormatError, match=r"x: loose\.jpg lies in no folder"):
        labels_of_folders(["cat/1.jpg", "loose.jpg"], Path("x"))


def test_only_some_of_the_images() -> None:
    images = LabelledImages(
        ["a", "b", "c"], np.array([1, 2, 3]), np.array([True, False, True]), np.array([4, 5, 6])
    )
    some = images.only(np.array([True, False, True]))
    assert some.ids == ["a", "c"]
    assert some.groups is not None
    assert (some.classes.tolist(), some.groups.tolist()) == ([1, 3], [4, 6])
    assert some.is_query.tolist() == [True, True]


def test_views_of_an_image_are_a_class_and_its_class_a_group() -> None:
    known = LabelledImages(["a", "b"], np.array([7, 8]), np.array([True, False]))
    views = labels_of_views(["a@0", "a@1", "b@0", "c@0"], known)
    assert views.ids == ["a@0", "a@1", "b@0"]
    assert views.classes.tolist() == [0, 0, 1]
    assert views.is_query.tolist() == [False, True, False]
    assert views.groups is not None
    assert views.groups.tolist() == [7, 7, 8]


def test_views_of_unlabelled_images_are_a_class_each() -> None:
    views = labels_of_views(["a@0", "a@1", "x@b@0"])
    assert views.ids == ["a@0", "a@1", "x@b@0"]
    assert views.classes.tolist() == [0, 0, 1]
    assert views.is_query.tolist() == [False, True, False]
    assert views.groups is None
    with pytest.raises(ValueError, match="'plain' is not a view"):
        labels_of_views(["a@0", "plain"])
