"""The first stage's lists, beside one plain argsort of all cosines."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.first_stage import Search, nearest
from model.formats.format_error import FormatError
from model.formats.nn_file import Neighbours
from model.global_rows import GlobalRows, write_raw
from tests.factories import unit

Vectors = NDArray[np.float32]


def write(path: Path, vectors: Vectors) -> Path:
    path.write_bytes(vectors.astype(np.float32).tobytes())
    return path


def search_files(folder: Path, queries: Vectors, gallery: Vectors, search: Search) -> Neighbours:
    q = write(folder / "q_global.pt", queries)
    g = write(folder / "g_global.pt", gallery)
    dim = queries.shape[1]
    with GlobalRows(q, dim) as of, GlobalRows(g, dim) as among:
        return nearest(of, among, search)


def plain(
    queries: Vectors, gallery: Vectors, most: int, without_self: bool = False
) -> tuple[Vectors, NDArray[np.int64]]:
    q, g = (
        (rows / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)).astype(np.float32)
        for rows in (queries, gallery)
    )
    cosines = (q.astype(np.float64) @ g.astype(np.float64).T).astype(np.float32)
    if without_self:
        np.fill_diagonal(cosines, -np.inf)
    order = np.argsort(-cosines, axis=1, kind="stable")[:, : min(most, len(g) - without_self)]
    return np.take_along_axis(cosines, order, axis=1), order


def same(lists: Neighbours, expected: tuple[Vectors, NDArray[np.int64]]) -> None:
    np.testing.assert_array_equal(lists.images, expected[1])
    np.testing.assert_allclose(lists.similarities, expected[0], atol=1e-7)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    gallery=st.integers(2, 300),
    most=st.integers(1, 320),
    values=st.integers(1, 3),
    block=st.integers(1, 310),
    query_block=st.integers(1, 20),
    without_self=st.booleans(),
)
def test_any_blocks_give_the_order_of_one_argsort(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    gallery: int,
    most: int,
    values: int,
    block: int,
    query_block: int,
    without_self: bool,
) -> None:
    """Small whole numbers: many vectors are equal, many more have equal cosines."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(-values, values + 1, (gallery, 5)).astype(np.float32)
    rows[~rows.any(axis=1), 0] = 1
    near = (rows[rng.integers(0, gallery, 12)] + rng.random((12, 5))).astype(np.float32)
    queries = rows if without_self else near
    search = Search(most, without_self, max(block, gallery // 40), max(query_block, gallery // 40))
    lists = search_files(tmp_path_factory.mktemp("lists"), queries, rows, search)
    same(lists, plain(queries, rows, most, without_self))


@pytest.mark.parametrize("block", [1000, 333, 64])
def test_only_the_best_of_a_long_gallery(tmp_path: Path, block: int) -> None:
    rng = np.random.default_rng(0)
    queries, gallery = unit(rng, 30, 48), unit(rng, 1000, 48)
    same(
        search_files(tmp_path, queries, gallery, Search(7, block=block)), plain(queries, gallery, 7)
    )


def test_two_hundred_copies_of_an_image_come_in_their_order(tmp_path: Path) -> None:
    """More equals than faiss is asked for beyond the list's end."""
    rng = np.random.default_rng(0)
    gallery = unit(rng, 400, 16)
    copies = rng.permutation(400)[:200]
    gallery[copies] = gallery[copies[0]]
    queries = gallery[copies[:2]]
    lists = search_files(tmp_path, queries, gallery, Search(10, block=90))
    np.testing.assert_array_equal(lists.images, [np.sort(copies)[:10]] * 2)


def test_an_image_is_left_out_by_its_place_not_by_its_rank(tmp_path: Path) -> None:
    """Copies have equal cosines: the first column is not always the image itself."""
    gallery = np.array([[1, 0], [1, 0], [0, 1], [1, 0]], np.float32)
    lists = search_files(tmp_path, gallery, gallery, Search(2, without_self=True))
    np.testing.assert_array_equal(lists.images, [[1, 3], [0, 3], [0, 1], [0, 1]])


def test_vectors_are_normalised_and_a_short_gallery_is_taken_whole(tmp_path: Path) -> None:
    gallery = np.array([[100, 0], [3, 4], [0, 0.5]], np.float32)
    lists = search_files(tmp_path, np.array([[0, 7]], np.float32), gallery, Search(1600))
    np.testing.assert_array_equal(lists.images, [[2, 1, 0]])
    np.testing.assert_allclose(lists.similarities, [[1, 0.8, 0]], atol=1e-7)


@pytest.mark.parametrize(("value", "what"), [(np.nan, "NaN or inf"), (np.inf, "NaN or inf")])
def test_a_row_that_is_no_number_is_named(tmp_path: Path, value: float, what: str) -> None:
    gallery = np.ones((9, 3), np.float32)
    gallery[5] = value
    with pytest.raises(FormatError, match=rf"g_global\.pt: row 5 is {what}"):
        search_files(tmp_path, np.ones((1, 3), np.float32), gallery, Search(2, block=4))


def test_globals_of_either_file_are_the_same(tmp_path: Path) -> None:
    rows = unit(np.random.default_rng(0), 9, 4)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        # As a killed writer leaves it: the last row has no id yet.
        file["globals"], file["ids"] = rows, [f"image-{n}" for n in range(8)]
    with GlobalRows(tmp_path / "x.h5") as file:
        assert (len(file), file.dim) == (8, 4)
        write_raw(file, tmp_path / "x_global.pt", block=3)
    with GlobalRows(tmp_path / "x_global.pt", 4) as raw:
        np.testing.assert_array_equal(raw.read(0, 8), rows[:8])


def test_a_file_of_another_kind_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "x_global.pt", np.ones(10, np.float32))
    for dim, message in ((3, "40 bytes are no rows of 3"), (None, "--dim"), (20, "no rows of 20")):
        with pytest.raises(FormatError, match=rf"x_global\.pt: .*{message}"):
            GlobalRows(path, dim)
    with pytest.raises(FormatError, match="no such file"):
        GlobalRows(tmp_path / "y", 3)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["features"] = np.ones(3)
    with pytest.raises(FormatError, match=r"x\.h5: has no dataset `globals`"):
        GlobalRows(tmp_path / "x.h5")


def test_one_image_has_no_neighbour_and_dimensions_must_agree(tmp_path: Path) -> None:
    one = np.ones((1, 2), np.float32)
    with pytest.raises(ValueError, match="1 images leave no neighbour"):
        search_files(tmp_path, one, one, Search(5, without_self=True))
    with (
        GlobalRows(write(tmp_path / "a", np.ones((2, 2), np.float32)), 2) as a,
        GlobalRows(write(tmp_path / "b", np.ones((2, 3), np.float32)), 3) as b,
        pytest.raises(ValueError, match=r"2 dimensions, .*b: 3"),
    ):
        nearest(a, b, Search(1))
