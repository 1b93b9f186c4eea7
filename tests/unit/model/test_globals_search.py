from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.globals_search import GlobalsMatrix
from tests.factories import unit


def matrix(rows: int, dim: int = 5, seed: int = 0) -> GlobalsMatrix:
    return GlobalsMatrix(
        [f"{n}" for n in range(rows)], unit(np.random.default_rng(seed), rows, dim)
    )


@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 99))
def test_it_finds_the_nearest_in_order(rows: int, most: int, seed: int) -> None:
    gallery = matrix(rows, seed=seed)
    query = unit(np.random.default_rng(seed + 1), 1, 5)[0]
    nearest = gallery.nearest(query, most)
    cosines = gallery.rows @ query
    expected = np.argsort(-cosines, kind="stable")[:most]
    assert [image_id for image_id, _ in nearest] == [str(n) for n in expected]
    assert [cosine for _, cosine in nearest] == pytest.approx(cosines[expected].tolist())


def test_the_query_itself_is_left_out_and_nothing_else() -> None:
    gallery = matrix(6)
    nearest = gallery.nearest(gallery.rows[3], 3, without="3")
    assert len(nearest) == 3
    assert "3" not in dict(nearest)
    assert gallery.nearest(gallery.rows[3], 1)[0][0] == "3"
    assert len(gallery.nearest(gallery.rows[3], 6, without="3")) == 5
    assert len(gallery.nearest(gallery.rows[3], 6, without="unknown")) == 6


def test_equal_ones_come_in_the_order_of_the_ids() -> None:
    row = unit(np.random.default_rng(0), 1, 5)
    gallery = GlobalsMatrix(list("abcdef"), np.repeat(row, 6, axis=0))
    assert [i for i, _ in gallery.nearest(row[0], 3)] == ["a", "b", "c"]
    assert [i for i, _ in gallery.nearest(row[0], 2, without="a")] == ["b", "c"]


def test_nothing_is_found_in_nothing() -> None:
    assert matrix(0).nearest(np.ones(5, np.float32), 3) == []
