from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from model.descriptors import ImageDescriptors
from model.matches import mutual_matches
from tests.factories import image, tiny_config, unit

CONFIG = tiny_config()


def described(rows: int, seed: int) -> ImageDescriptors:
    return image(np.random.default_rng(seed), CONFIG, rows)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 99))
def test_each_is_the_others_nearest_and_the_strongest_come_first(m: int, n: int, seed: int) -> None:
    query, gallery = described(m, seed), described(n, seed + 100)
    cosines = query.locals @ gallery.locals.T
    matches = mutual_matches(query, gallery)
    assert matches
    for match in matches:
        assert cosines[match.query_row].argmax() == match.gallery_row
        assert cosines[:, match.gallery_row].argmax() == match.query_row
    strengths = [match.cosine for match in matches]
    assert strengths == sorted(strengths, reverse=True)


def test_an_image_matches_itself_row_by_row() -> None:
    one = described(7, 3)
    assert sorted((m.query_row, m.gallery_row) for m in mutual_matches(one, one)) == [
        (row, row) for row in range(7)
    ]


def test_padding_matches_nothing() -> None:
    rng = np.random.default_rng(5)
    padding = np.array([True, False, True, False])
    rows = unit(rng, 4, 8) * ~padding[:, None]
    padded = ImageDescriptors(rows, np.zeros(4, np.uint8), None, padding)
    matches = mutual_matches(padded, described(6, 1))
    assert {match.query_row for match in matches} <= {1, 3}
