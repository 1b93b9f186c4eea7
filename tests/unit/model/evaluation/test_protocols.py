"""Who is relevant to whom in each benchmark, and the figures of a ranking."""

from __future__ import annotations

import numpy as np
import pytest

from model.evaluation.protocols import (
    labelled_protocol,
    landmark_protocols,
    revisited_protocols,
    selection_protocols,
)
from model.formats.ground_truth import QueryTruth

LABELS = np.array([0, 0, 1, 1, 1, 2])
"""Of a gallery that asks itself; image 5 has nobody."""


def indices(*places: int) -> np.ndarray:
    return np.array(places, np.int64)


def truth(
    easy: tuple[int, ...], hard: tuple[int, ...] = (), junk: tuple[int, ...] = ()
) -> QueryTruth:
    return QueryTruth(indices(*easy), indices(*hard), indices(*junk), graded=bool(hard))


def test_the_private_queries_of_landmarks_are_the_last_750() -> None:
    queries = [truth((0,))] + [truth((1,)), truth(())] + [truth((2,))] * 749
    public, private, combined = landmark_protocols(queries)
    assert public.counted.sum() == 2
    assert private.counted.sum() == 749
    ranking = np.tile([0, 9], (len(queries), 1))
    ranking[1] = [9, 1]
    assert public.judge(ranking) == {"mAP@100": pytest.approx((1 + 1 / 2) / 2)}
    assert private.judge(ranking) == {"mAP@100": 0}
    assert combined.judge(ranking) == {"mAP@100": pytest.approx((1 + 1 / 2) / 751)}
    assert selection_protocols([public, private, combined]) == [public]


def test_labelled_figures_by_hand() -> None:
    protocol = labelled_protocol(LABELS, LABELS, (1, 2, 4), among_themselves=True)
    assert protocol.counted.tolist() == [True] * 5 + [False]
    # Queries 0 to 4; R is 1, 1, 2, 2, 2.
    ranking = np.array([[1, 2], [2, 0], [3, 4], [0, 4], [0, 1], [0, 1]])
    assert protocol.judge(ranking) == {
        "R@1": pytest.approx(2 / 5),
        "R@2": pytest.approx(4 / 5),
        "mAP@R": pytest.approx((1 + 0 + 1 + (1 / 2) / 2 + 0) / 5),
    }
    apart = labelled_protocol(np.array([1, 7]), LABELS, (1,), among_themselves=False)
    assert apart.counted.tolist() == [True, False]
    assert apart.judge(np.array([[2, 3, 4], [0, 1, 2]])) == {"R@1": 1, "mAP@R": 1}


def test_a_place_that_the_query_itself_takes_is_none_for_others() -> None:
    labels = np.array([0, 0, 1, 1])
    protocol = labelled_protocol(labels, labels, (1, 2), among_themselves=True)
    without_self = np.array([[1, 2], [2, 0], [3, 0], [0, 1]])
    assert set(protocol.judge(without_self)) == {"R@1", "R@2", "mAP@R"}
    named = np.array([[1, 0], [2, 1], [3, 2], [0, 3]])
    assert protocol.judge(named) == pytest.approx({"R@1": 0.5, "mAP@R": 0.5})


def test_revisited_protocols_are_those_asked_for() -> None:
    protocols = revisited_protocols(
        [truth((1,), (2,)), truth((1,), (3,))], ("medium", "hard"), (1,)
    )
    assert [protocol.name for protocol in protocols] == ["medium", "hard"]
    assert protocols[1].judge(np.array([[1, 2], [3, 1]])) == {"mAP": 1, "mP@1": 1}
    assert [protocol.name for protocol in selection_protocols(protocols)] == ["medium", "hard"]
