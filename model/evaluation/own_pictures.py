"""Turns a folder of pictures into a retrieval task: by a CSV, by sub-folders, or by views."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from model.extraction.images import find_images, read_image
from model.formats.format_error import FormatError
from model.formats.labels import LabelledImages, labels_of_folders, labels_of_views, read_labels

VIEWS = 3
"""Views of a picture without a label: every second one is a query for the others."""
_SHARE = 20
"""If only a part of the pictures is used, a label has at most this share of them."""
_SEED = 0


@dataclass(frozen=True, eq=False)
class OwnPictures:
    """`files`: pictures to describe, by id. `labels`: their labels, None if views find each other;
    `labels_file`: the CSV of the labels. `notes`: what is left out, one line each."""

    folder: Path
    files: Mapping[str, Path]
    labels: LabelledImages | None
    labels_file: Path | None
    notes: tuple[str, ...] = ()

    @property
    def task(self) -> str:
        """The task, in words."""
        if self.labels is None:
            return "a view of a picture asks for other views of it"
        of = "sub-folder" if self.labels_file is None else f"label of {self.labels_file.name}"
        return f"a picture asks for those of its {of}"

    @property
    def views(self) -> int:
        """Views to describe of each picture, 0 if the picture itself is to be."""
        return VIEWS if self.labels is None else 0

    def picture(self, name: str) -> Image.Image:
        """The picture of an image of the task, or a view of one. Raises UnreadableImageError."""
        if self.labels is not None:
            return read_image(self.files[name])
        # The views need their own extra.
        from model.extraction.views import numbered_view

        original, _, number = name.rpartition("@")
        return numbered_view(original, self.files[original], int(number))


def own_pictures(
    folder: Path,
    labels: Path | None = None,
    *,
    views: bool = False,
    max_pictures: int | None = None,
) -> OwnPictures:
    """Labels are those of the CSV file `labels`, or of the folder's `labels.csv`, whose paths are
    below the folder; or else the names of the sub-folders. Without either, or where `views` are
    set, views of a picture are to find each other. Of more than `max_pictures` pictures, or views,
    a sample is drawn, of complete labels as far as possible.

    Raises FormatError and UnreadableImageError if nothing can be judged by them.
    """
    files = find_images([folder])
    if not files:
        raise FormatError(f"{folder}: has no pictures")
    if labels is None and (folder / "labels.csv").is_file():
        labels = folder / "labels.csv"
    max_pictures = len(files) * VIEWS if max_pictures is None else max_pictures
    if views or (labels is None and not any("/" in name for name in files)):
        return _by_views(folder, files, max_pictures)
    images, notes = _by_folders(folder, files) if labels is None else _by_csv(labels, files)
    _check(images, folder, "label")
    some = _sample(images, max_pictures)
    if len(some.ids) < len(images.ids):
        notes.append(f"{len(some.ids):,} of {len(images.ids):,} labelled pictures are judged")
    own = {name: files[name] for name in some.ids}
    return OwnPictures(folder, own, some, labels, tuple(notes))


def own_labels(pictures: OwnPictures, described: Collection[str], queries: int) -> LabelledImages:
    """The labels of the images that could be described, with at most `queries` queries, evenly
    spaced. A query without a relevant gallery image joins the gallery.

    Raises FormatError if nothing can be judged by them.
    """
    if pictures.labels is None:
        own = [name for name in described if name.rpartition("@")[0] in pictures.files]
        images = labels_of_views(own)
        _check(images, pictures.folder, "picture")
    else:
        described_ids = set(described)
        images = pictures.labels.only(
            np.array([name in described_ids for name in pictures.labels.ids])
        )
        _check(images, pictures.folder, "label")
    answerable = np.isin(images.classes, images.classes[~images.is_query])
    images = replace(images, is_query=images.is_query & answerable)
    rows = np.flatnonzero(images.is_query)
    if len(rows) < 2:
        raise FormatError(
            f"{pictures.folder}: {len(rows)} picture that has another of its label to ask for, "
            "but at least two are needed"
        )
    sample = rows[np.linspace(0, len(rows) - 1, min(queries, len(rows))).round().astype(int)]
    keep = ~images.is_query
    keep[sample] = True
    return images.only(keep)


def _by_views(folder: Path, files: Mapping[str, Path], max_pictures: int) -> OwnPictures:
    names = list(files)
    count = min(len(names), max(2, max_pictures // VIEWS))
    places = np.random.default_rng(_SEED).permutation(len(names))[:count]
    notes = [f"{count:,} of {len(names):,} pictures are judged"] if count < len(names) else []
    own = {names[place]: files[names[place]] for place in np.sort(places)}
    return OwnPictures(folder, own, None, None, tuple(notes))


def _by_folders(folder: Path, files: Mapping[str, Path]) -> tuple[LabelledImages, list[str]]:
    loose = [name for name in files if "/" not in name]
    notes = [f"left out: {_counted(loose)} in no sub-folder, so without a label"] if loose else []
    return labels_of_folders([name for name in files if "/" in name], folder), notes


def _by_csv(path: Path, files: Mapping[str, Path]) -> tuple[LabelledImages, list[str]]:
    labelled_images = read_labels(path)
    keep = np.array([name in files for name in labelled_images.ids])
    absent = [name for name in labelled_images.ids if name not in files]
    labelled = set(labelled_images.ids)
    unlabelled = [name for name in files if name not in labelled]
    if not keep.any():
        raise FormatError(f"{path}: none of its pictures is in the folder, {absent[0]} for one")
    notes = [f"left out: {_counted(absent)} in {path}, but not in the folder"] if absent else []
    notes += [f"left out: {_counted(unlabelled)} not in {path}"] if unlabelled else []
    return labelled_images.only(keep), notes


def _counted(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{len(names):,} pictures, {names[0]} for one,"


def _check(images: LabelledImages, folder: Path, kind: str) -> None:
    """Raises FormatError for fewer than two classes: then every order is right."""
    classes = len(np.unique(images.classes))
    if classes < 2:
        instead = ", or --views" if kind == "label" and images.ids else ""
        raise FormatError(
            f"{folder}: {classes} {kind} that can be judged, but at least two are needed{instead}"
        )


def _sample(images: LabelledImages, max_pictures: int) -> LabelledImages:
    """Draws labels until there are `max_pictures` images."""
    if len(images.ids) <= max_pictures:
        return images
    keep = np.zeros(len(images.ids), np.bool_)
    for of in np.random.default_rng(_SEED).permutation(np.unique(images.classes)):
        keep[np.flatnonzero(images.classes == of)[: max(3, max_pictures // _SHARE)]] = True
        if keep.sum() >= max_pictures:
            break
    return images.only(keep)
