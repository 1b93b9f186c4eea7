"""Files become training data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from model.config import ExtractorId
from model.descriptor_file import DescriptorFileError
from model.descriptors import DescriptorSizes
from model.formats.format_error import FormatError
from model.training.sources import folders_data, labels_of
from model.training.training_error import TrainingError
from model.training.training_lists import ListShape
from tests.descriptor_files import MADE_UP, write_descriptors

CPU = torch.device("cpu")
OTHER = ExtractorId(name="other", version="3")


def names(classes: str, count: int = 6) -> list[str]:
    return [f"{name}/{name}-{n}.png" for name in classes for n in range(count)]


def with_csv(folder: Path, ids: list[str]) -> Path:
    folder.mkdir()
    lines = [f"{image_id},{image_id.partition('/')[0]}" for image_id in ids]
    (folder / "labels.csv").write_text("\n".join(["path,label", *lines]) + "\n")
    return folder


def with_images(folder: Path, ids: list[str]) -> Path:
    for image_id in ids:
        (folder / image_id).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (1, 1)).save(folder / image_id)
    return folder


def described(
    path: Path,
    ids: list[str],
    sizes: tuple[int, int] = (8, 12),
    extractor: ExtractorId = MADE_UP,
) -> Path:
    write_descriptors(path, ids, sizes=sizes, extractor=extractor)
    return path


def test_a_file_belongs_to_the_folders_of_which_it_has_every_image(tmp_path: Path) -> None:
    shoes = with_csv(tmp_path / "shoes", names("abcd"))
    coins = with_csv(tmp_path / "coins", names("pqrs"))
    both = described(tmp_path / "both.h5", names("abcdpqrs"))
    part = described(tmp_path / "part.h5", names("abc"), sizes=(3, 4), extractor=OTHER)
    of = folders_data([shoes, coins], [both, part], [], None)
    assert of.extractor == MADE_UP
    assert of.sizes == DescriptorSizes(8, 12)
    with pytest.raises(TrainingError, match=r"coins: no file of --descriptors has all"):
        folders_data([shoes, coins], [part, described(tmp_path / "s.h5", names("abcd"))], [], None)


def test_sub_folders_are_told_apart_by_their_images(tmp_path: Path) -> None:
    """Each of two folders without labels.csv has its own file, in whatever order they come."""
    shoes = with_images(tmp_path / "shoes", names("abc"))
    coins = with_images(tmp_path / "coins", names("pqrst"))
    files = [
        described(tmp_path / "loose.h5", ["x.png", "y.png"]),
        described(tmp_path / "coins.h5", names("pqrst")),
        described(tmp_path / "shoes.h5", names("abc")),
    ]
    of = folders_data([shoes, coins], files, [], 0)
    # A fold is of the first folder's three classes.
    assert len(of.held_out_classes) == 1
    assert of.validation is not None
    assert len(of.validation.queries) == 2
    assert len(of.validation.gallery) == 4


def test_labels_are_those_of_the_csv_or_of_sub_folders(tmp_path: Path) -> None:
    csv = with_csv(tmp_path / "csv", names("ab"))
    assert labels_of(csv, ["ignored"]).ids == names("ab")
    assert labels_of(csv / "labels.csv", []).ids == names("ab")
    bare = tmp_path / "bare"
    bare.mkdir()
    assert labels_of(bare, names("ab")).classes.tolist() == [0] * 6 + [1] * 6
    with pytest.raises(FormatError, match=r"x\.png lies in no folder"):
        labels_of(bare, ["x.png"])


def test_files_of_one_extractor_are_put_together_and_versions_do_not_mix(tmp_path: Path) -> None:
    shoes = with_csv(tmp_path / "shoes", names("ab"))
    coins = with_csv(tmp_path / "coins", names("pq"))
    one, two = described(tmp_path / "1.h5", names("ab")), described(tmp_path / "2.h5", names("pq"))
    views = [
        described(tmp_path / f"views-{n}.h5", [f"{i}@{v}" for i in names(of) for v in range(2)])
        for n, of in enumerate(("ab", "pq"))
    ]
    assert folders_data([shoes, coins], [one, two], views, None).fingerprint
    newer = ExtractorId(name="made-up", version="2")
    mixed = described(tmp_path / "newer.h5", names("ab"), extractor=newer)
    with pytest.raises(
        DescriptorFileError, match=r"newer\.h5: was made by another version of made-up"
    ):
        folders_data([shoes], [one, mixed], [], None)


def test_several_extractors_are_mixed(tmp_path: Path) -> None:
    shoes = with_csv(tmp_path / "shoes", names("abcd"))
    files = [
        described(tmp_path / "one.h5", names("abcd")),
        described(tmp_path / "other.h5", names("abcd"), sizes=(5, 20), extractor=OTHER),
    ]
    of = folders_data([shoes], files, [], None)
    # Those that are not bent are as they came.
    training_lists = [
        of.source.draw(np.random.default_rng(seed), ListShape(5, 6)) for seed in range(60)
    ]
    assert {8, 5} <= {one.window.query.locals.shape[1] for one in training_lists}
