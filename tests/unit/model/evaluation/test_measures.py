from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from model.evaluation.measures import (
    average_precision_at,
    map_at_r,
    recall_at,
    recall_at_1,
    revisited,
)

REVISITOP = Path(__file__).parents[3] / "data" / "revisitop"
RANKED = np.array([[1, 0, 1, 0, 1], [0, 1, 0, 0, 0]], dtype=bool)
RELEVANT = np.array([3, 2])


def test_recall_at_1_is_whether_the_first_is_relevant() -> None:
    assert recall_at_1(RANKED).tolist() == [1, 0]


def test_recall_at_k_is_whether_one_of_the_first_is_relevant() -> None:
    assert recall_at(RANKED, 2).tolist() == [1, 1]
    assert recall_at(RANKED[:, 2:], 2).tolist() == [1, 0]


def test_map_at_r_by_hand() -> None:
    # R = 3: relevant at places 1 and 3 of the first three. R = 2: at place 2 of the first two.
    assert map_at_r(RANKED, RELEVANT).tolist() == pytest.approx([(1 + 2 / 3) / 3, (1 / 2) / 2])


def test_a_perfect_order_has_map_at_r_of_one() -> None:
    assert map_at_r(np.array([[True, True, False]]), np.array([2])).tolist() == [1]


def test_a_query_without_relevant_images_is_refused() -> None:
    with pytest.raises(ValueError, match="no mAP@R"):
        map_at_r(RANKED, np.array([3, 0]))


@pytest.mark.parametrize("name", ["roxford5k", "rparis6k"])
@pytest.mark.parametrize(
    ("protocol", "positive", "junk"),
    [
        ("easy", ("easy",), ("junk", "hard")),
        ("medium", ("easy", "hard"), ("junk",)),
        ("hard", ("hard",), ("junk", "easy")),
    ],
)
def test_revisited_figures_are_those_of_the_benchmarks_own_code(
    name: str, protocol: str, positive: tuple[str, ...], junk: tuple[str, ...]
) -> None:
    truth = pickle.loads((REVISITOP / f"gnd_{name}.pkl").read_bytes())["gnd"]  # noqa: S301
    ranks = np.load(REVISITOP / f"{name}_seed7.npz")["ranks"].astype(np.int64)
    expected = json.loads((REVISITOP / f"{name}_seed7.json").read_text())[protocol]

    def indices(keys: tuple[str, ...]) -> list[np.ndarray]:
        return [np.concatenate([of[key] for key in keys]).astype(np.int64) for of in truth]

    figures = revisited(ranks, indices(positive), indices(junk), (1, 5, 10))
    assert np.nanmean(figures.average_precision) == pytest.approx(expected["mAP"], abs=1e-6)
    assert np.nanmean(figures.precision, axis=0) == pytest.approx(
        [expected["mP"][k] for k in ("1", "5", "10")], abs=1e-6
    )
    first = [np.nan if ap is None else ap for ap in expected["AP_of_first_10_queries"]]
    assert figures.average_precision[:10] == pytest.approx(first, abs=1e-6, nan_ok=True)


def indices(*lists: list[int]) -> list[np.ndarray]:
    return [np.array(places, np.int64) for places in lists]


def test_a_revisited_ranking_by_hand() -> None:
    # Without junk (image 9) the positives are at places 1 and 2 of 0, 1, 2: of precision 0 before
    # the first and 1/2 after it, 1/2 and 2/3 around the second. The last positive is third.
    figures = revisited(np.array([[9, 3, 1, 2, 4]]), indices([1, 2]), indices([9]), (1, 2, 10))
    assert figures.average_precision.tolist() == pytest.approx(
        [((0 + 1 / 2) + (1 / 2 + 2 / 3)) / 4]
    )
    assert figures.precision.tolist() == [pytest.approx([0, 1 / 2, 2 / 3])]


def test_a_top_of_the_gallery_counts_as_many_positives_as_it_has_places() -> None:
    three = indices([1, 2, 3])
    junk = indices([])
    assert revisited(np.array([[1, 2]]), three, junk).average_precision == pytest.approx([1])
    assert revisited(np.array([[1, 7, 8]]), three, junk).average_precision == pytest.approx([1 / 3])


def test_queries_without_positives_are_left_out_and_those_not_found_are_zero() -> None:
    rankings = np.array([[1, 2], [1, 2]])
    figures = revisited(rankings, indices([], [5]), indices([1], [1]))
    assert np.isnan(figures.average_precision[0])
    assert np.isnan(figures.precision[0]).all()
    assert figures.average_precision[1] == 0
    assert figures.precision[1].tolist() == [0, 0, 0]
    assert np.isnan(average_precision_at(rankings, indices([], [5]))[0])


def test_average_precision_at_k_by_hand() -> None:
    ranking = np.array([[4, 1, 9, 2, 3]])
    # Positives at places 2 and 4, of three that there are; of two places, one of at most two.
    assert average_precision_at(ranking, indices([1, 2, 8]), 4) == pytest.approx(
        [(1 / 2 + 2 / 4) / 3]
    )
    assert average_precision_at(ranking, indices([1, 2, 8]), 2) == pytest.approx([(1 / 2) / 2])
