from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model.formats.format_error import FormatError
from model.formats.nn_file import Neighbours, read_neighbours, write_neighbours

LISTS = np.array([[[0.9, 0.5, 0.1], [0.8, 0.7, 0.6]], [[4, 0, 2], [1, 3, 0]]], np.float32)


def written(path: Path, value: object) -> Path:
    path.write_bytes(pickle.dumps(value))
    return path


@pytest.mark.parametrize("value", [LISTS, LISTS.astype(np.float64), torch.from_numpy(LISTS)])
def test_arrays_and_tensors_are_read(tmp_path: Path, value: object) -> None:
    stored_lists = read_neighbours(written(tmp_path / "nn.pkl", value), queries=2, gallery=5)
    assert stored_lists.images.tolist() == [[4, 0, 2], [1, 3, 0]]
    assert stored_lists.similarities.dtype == np.float32
    np.testing.assert_array_equal(stored_lists.similarities, LISTS[0])


def test_tensors_of_any_kind_are_read_or_refused(tmp_path: Path) -> None:
    numbers = torch.from_numpy(LISTS)
    for value in (numbers.bfloat16(), numbers.clone().requires_grad_()):
        path = tmp_path / "nn.pt"
        torch.save(value, path)
        assert read_neighbours(path, queries=2, gallery=5).images.tolist()[0] == [4, 0, 2]
    torch.save(numbers.to_sparse(), tmp_path / "sparse.pt")
    with pytest.raises(FormatError, match=r"sparse\.pt"):
        read_neighbours(tmp_path / "sparse.pt", queries=2, gallery=5)


def test_the_first_places_alone_are_kept(tmp_path: Path) -> None:
    path = written(tmp_path / "nn.pkl", LISTS)
    stored_lists = read_neighbours(path, queries=2, gallery=5, max_neighbours=2)
    assert stored_lists.images.tolist() == [[4, 0], [1, 3]]
    assert stored_lists.similarities.base is None


def test_an_image_twice_in_a_list_is_refused(tmp_path: Path) -> None:
    twice = LISTS.copy()
    twice[1, 1] = [1, 3, 1]
    with pytest.raises(FormatError, match="query 1 has an image twice"):
        read_neighbours(written(tmp_path / "nn.pkl", twice), queries=2, gallery=5)


@pytest.mark.parametrize("largest", [4, 2**24, 2**24 + 1])
def test_what_is_written_comes_back_whole(tmp_path: Path, largest: int) -> None:
    images = np.array([[largest, 0, 2]])
    path = tmp_path / "nn.pkl"
    write_neighbours(path, Neighbours(LISTS[0, :1], images))
    stored_lists = read_neighbours(path, queries=1, gallery=largest + 1)
    assert stored_lists.images.tolist() == images.tolist()
    np.testing.assert_array_equal(stored_lists.similarities, LISTS[0, :1])
    assert list(tmp_path.iterdir()) == [path]
    stored = pickle.loads(path.read_bytes())  # noqa: S301
    assert stored.dtype == (np.float32 if largest <= 2**24 else np.float64)


def changed(place: tuple[int, ...], value: float) -> NDArray[np.float32]:
    lists = LISTS.copy()
    lists[place] = value
    return lists


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (changed((1, 1, 1), 5), "query 1 has index 5, but the gallery has 5 images"),
        (changed((1, 0, 2), -1), "query 0 has index -1"),
        (changed((1, 0, 2), 0.5), "query 0 has an index that is not a whole number"),
        (changed((1, 0, 2), 1e30), "query 0 has an index that is not a whole number"),
        (changed((1, 0, 2), np.nan), "NaN or infinity in the list of query 0"),
        (changed((0, 1, 2), np.nan), "NaN or infinity in the list of query 1"),
        (
            changed((0, 1, 2), 1).astype(np.float64) * 1e300,
            "NaN or infinity in the list of query 0",
        ),
        (LISTS[:, :1], "lists of 1 queries, but there are 2"),
        (LISTS[0], "shape (2, 3)"),
        (LISTS[:1], "shape (1, 2, 3)"),
        (LISTS[:, :, :0], "shape (2, 2, 0)"),
        ([1, 2], "not an array of numbers"),
        (np.array(["x"]), "not an array of numbers"),
    ],
)
def test_what_is_no_list_is_said(tmp_path: Path, value: object, message: str) -> None:
    path = written(tmp_path / "nn.pkl", value)
    with pytest.raises(FormatError) as caught:
        read_neighbours(path, queries=2, gallery=5)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
