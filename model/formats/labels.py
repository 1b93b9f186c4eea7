"""Reads labels of images: a CSV of paths and labels, or sub-folders whose names are the labels."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.formats.format_error import FormatError
from model.formats.text import text_of
from model.image_ids import image_id, portable

_EVERY_THIRD = 3
_MAX_DIGITS = 18
"""Digits of a label that is a number: these always fit into 64 bits."""
_PATH = "path"
_LABELS = ("label", "class_id")
_ROLES = {"query": True, "gallery": False, "test": True, "train": False, "val": False}


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Ids, classes (n,) and whether each is a query (n,): the others are the gallery.

    `groups` (n,), where given: images of one group and two classes may well show the same thing,
    so they are neither relevant to each other nor irrelevant.
    """

    ids: list[str]
    classes: NDArray[np.int64]
    is_query: NDArray[np.bool_]
    groups: NDArray[np.int64] | None = None

    def only(self, keep: NDArray[np.bool_]) -> LabelledImages:
        ids = [image_id for image_id, is_kept in zip(self.ids, keep, strict=True) if is_kept]
        groups = None if self.groups is None else self.groups[keep]
        return LabelledImages(ids, self.classes[keep], self.is_query[keep], groups)


def read_labels(path: Path) -> LabelledImages:
    """Reads a CSV file, or the `labels.csv` of a folder: columns `path`, `label` (or `class_id`)
    and perhaps `role` (`query` or `gallery`; or `source_split`, of which `test` are queries).
    Without roles every third image of a label is a query. Columns are separated by commas,
    semicolons or tabs; a path is an image's path on disk, or its id. Raises FormatError."""
    path = path / "labels.csv" if path.is_dir() else path
    try:
        with text_of(path, newline="", what="a readable CSV file") as file:
            # Pipes have no beginning to go back to.
            table = io.StringIO(file.read(), newline="")
            header = table.readline()
            table.seek(0)
            reader = csv.DictReader(table, delimiter=max(",;\t", key=header.count))
            columns = reader.fieldnames or ()
            label = next((name for name in _LABELS if name in columns), None)
            role = next((name for name in ("role", "source_split") if name in columns), None)
            if _PATH not in columns or label is None:
                raise FormatError(f"{path}: needs columns path and label, has {', '.join(columns)}")
            rows = list(reader)
        ids = [image_id(portable(row[_PATH])) if row[_PATH] else "" for row in rows]
        labels = [row[label] for row in rows]
        roles = None if role is None else [_ROLES[row[role]] for row in rows]
    except KeyError as error:
        raise FormatError(f"{path}: role {error} is neither query nor gallery") from None
    except csv.Error as error:
        raise FormatError(f"{path}: not a readable CSV file ({error})") from None
    if not rows:
        raise FormatError(f"{path}: names no image")
    if not all(ids) or not all(labels):
        raise FormatError(f"{path}: a row without a path or a label")
    return labelled(path, ids, labels, roles)


def labels_of_folders(ids: Sequence[str], what: Path) -> LabelledImages:
    """The folder that an image lies in is its label: `cat` of `animals/cat/1.jpg`. Raises
    FormatError, naming `what`, for an id that lies in none."""
    bare = [image_id for image_id in ids if "/" not in image_id]
    if bare:
        raise FormatError(f"{what}: {bare[0]} lies in no folder that could be its label")
    return labelled(what, ids, [image_id.split("/")[-2] for image_id in ids], None)


def labels_of_views(ids: Sequence[str], known: LabelledImages | None = None) -> LabelledImages:
    """Views (`IMAGE@NUMBER`): each image is a class of its own, its odd numbers are queries.
    Where labelled images are known, views of others are left out, and images of one class are a
    group. Raises ValueError for an id of another form."""
    split = [view.rpartition("@") for view in ids]
    unnumbered = [view for view, (_, _, n) in zip(ids, split, strict=True) if not n.isdecimal()]
    if unnumbered:
        raise ValueError(f"{unnumbered[0]!r} is not a view: IMAGE@NUMBER")
    names = known.ids if known is not None else sorted({image for image, _, _ in split})
    places = {image_id: place for place, image_id in enumerate(names)}
    views = [(f"{i}@{n}", places[i], int(n)) for i, _, n in split if i in places]
    images = np.array([place for _, place, _ in views], dtype=np.int64)
    return LabelledImages(
        [view for view, _, _ in views],
        images,
        np.array([number % 2 == 1 for _, _, number in views], dtype=np.bool_),
        None if known is None else known.classes[images],
    )


def labelled(
    what: Path, ids: Sequence[str], labels: Sequence[str], roles: Sequence[bool] | None
) -> LabelledImages:
    """Labels that are all numbers are the classes. Raises FormatError for an id that is named
    twice."""
    if len(set(ids)) < len(ids):
        repeated = next(image_id for image_id in ids if ids.count(image_id) > 1)
        raise FormatError(f"{what}: {repeated} is named twice")
    if all(label.isdecimal() and len(label) <= _MAX_DIGITS for label in labels):
        classes = np.array([int(label) for label in labels], np.int64)
    else:
        _, classes = np.unique(np.array(labels, dtype=str), return_inverse=True)
    if roles is None:
        is_query = np.zeros(len(ids), np.bool_)
        for of in np.unique(classes):
            is_query[np.flatnonzero(classes == of)[::_EVERY_THIRD]] = True
    else:
        is_query = np.array(roles, np.bool_)
    return LabelledImages(list(ids), classes.astype(np.int64), is_query)
