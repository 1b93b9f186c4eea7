"""A query has no say in its own setting."""

from __future__ import annotations

import numpy as np
import pytest

from model.evaluation.cross_validation import FOLDS, cross_validated


def test_the_other_folds_choose() -> None:
    rng = np.random.default_rng(0)
    values = rng.random((4, 23))
    choice = cross_validated(values)
    for query in range(23):
        others = [q for q in range(23) if q % FOLDS != query % FOLDS]
        assert choice[query] == np.argmax([row[others].mean() for row in values])


def test_a_setting_that_is_good_for_one_query_is_not_chosen_for_it() -> None:
    values = np.full((2, 10), 0.5)
    values[1] = 0.4
    values[1, 3] = 1.0
    choice = cross_validated(values)
    assert choice[3] == 0
    # Nor for another of its fold; the other folds are told a mean of 0.475 against 0.5.
    assert choice[8] == 0
    assert (choice == 0).all()


def test_the_first_of_equals_is_chosen() -> None:
    assert cross_validated(np.ones((3, 7))).tolist() == [0] * 7


def test_two_queries_choose_for_each_other() -> None:
    assert cross_validated(np.array([[1.0, 0.0], [0.0, 1.0]])).tolist() == [1, 0]
    with pytest.raises(ValueError, match="one query"):
        cross_validated(np.ones((3, 1)))
