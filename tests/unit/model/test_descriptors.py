from __future__ import annotations

import numpy as np
import pytest

from model.descriptors import (
    ImageDescriptors,
    InvalidDescriptorsError,
    first_stage_scores,
    normalised,
)
from tests.factories import image, tiny_config


def test_rows_come_out_with_length_one() -> None:
    rows = normalised(np.array([[3.0, 4.0], [1e-30, 0.0]], np.float32), "rows")
    assert rows.flatten().tolist() == pytest.approx([0.6, 0.8, 1, 0])


def test_vectors_keep_their_shape() -> None:
    assert normalised(np.array([0.0, 2.0], np.float32), "global").tolist() == [0, 1]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused(bad: float) -> None:
    with pytest.raises(InvalidDescriptorsError, match="rows: NaN or infinity"):
        normalised(np.array([[1.0, bad]], np.float32), "rows")


def test_a_row_of_zeros_is_refused_and_named() -> None:
    with pytest.raises(InvalidDescriptorsError, match="rows: row 1 is all zeros"):
        normalised(np.array([[1.0, 0.0], [0.0, 0.0]], np.float32), "rows")


def test_the_first_stage_is_the_cosine_of_the_globals() -> None:
    query = ImageDescriptors(np.eye(2), np.zeros(2, np.uint8), np.array([1.0, 0.0]))
    other = ImageDescriptors(np.eye(2), np.zeros(2, np.uint8), np.array([3.0, 4.0]))
    scores = first_stage_scores(query, [query, other])
    assert scores is not None
    np.testing.assert_allclose(scores, [1.0, 0.6], rtol=1e-6)


def test_there_is_no_first_stage_unless_all_have_a_global() -> None:
    rng = np.random.default_rng(0)
    config = tiny_config()
    query, bare = image(rng, config), image(rng, config, with_global=False)
    assert first_stage_scores(query, [image(rng, config), bare]) is None
    assert first_stage_scores(bare, [query]) is None
