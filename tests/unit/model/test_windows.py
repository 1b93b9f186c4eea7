"""Windows cover a list; a re-ranking only ever re-orders it."""

from __future__ import annotations

import math
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.windows import DIRECTIONS, Direction, Reranking, RerankOptions, plan_windows


@st.composite
def plans(draw: st.DrawFn) -> tuple[int, int, int, Direction]:
    window = draw(st.integers(1, 40))
    return (
        draw(st.integers(1, 120)),
        window,
        draw(st.integers(1, window)),
        draw(st.sampled_from(DIRECTIONS)),
    )


def options(window: int, stride: int, direction: Direction, alpha: float = 0.0) -> RerankOptions:
    return RerankOptions(alpha, 1.0, window, stride, direction)


@given(plans())
def test_windows_are_full_and_cover_the_list(plan: tuple[int, int, int, Direction]) -> None:
    count, window, stride, direction = plan
    stretches = plan_windows(*plan)
    covered = {place for stretch in stretches for place in range(stretch.start, stretch.stop)}
    assert covered == set(range(count))
    assert all(s.stop - s.start == min(window, count) for s in stretches)
    one_way = 1 if count <= window else math.ceil((count - window) / stride) + 1
    turns = direction.count("-to-") == 2
    assert len(stretches) == (2 * one_way - 1 if turns else one_way)


def test_the_published_setting() -> None:
    starts = [s.start for s in plan_windows(400, 100, 50, "end-to-start")]
    assert starts == [300, 250, 200, 150, 100, 50, 0]


def test_the_last_window_is_shifted_to_be_full() -> None:
    assert plan_windows(7, 4, 2, "end-to-start") == [slice(3, 7), slice(1, 5), slice(0, 4)]
    assert plan_windows(7, 4, 2, "start-to-end") == [slice(0, 4), slice(2, 6), slice(3, 7)]


def test_the_window_at_the_turn_is_not_repeated() -> None:
    there_and_back = [s.start for s in plan_windows(7, 4, 2, "end-to-start-to-end")]
    assert there_and_back == [3, 1, 0, 2, 3]


@pytest.mark.parametrize(
    ("count", "window", "stride"), [(0, 4, 2), (5, 4, 5), (5, 4, 0), (5, 0, 0)]
)
def test_impossible_plans_are_refused(count: int, window: int, stride: int) -> None:
    with pytest.raises(ValueError, match=r"stride|empty"):
        plan_windows(count, window, stride, "end-to-start")


@given(plans(), st.integers(0, 2**31))
def test_a_reranking_is_a_permutation(plan: tuple[int, int, int, Direction], seed: int) -> None:
    count, window, stride, direction = plan
    rng = np.random.default_rng(seed)
    reranking = Reranking(count, None, options(window, stride, direction))
    calls = 0
    while (images := reranking.next_window()) is not None:
        assert len(set(images.tolist())) == len(images)
        reranking.accept(rng.standard_normal(len(images)).astype(np.float32))
        calls += 1
    assert calls == len(plan_windows(*plan))
    order, relevance = reranking.result()
    assert sorted(order.tolist()) == list(range(count))
    if count <= window:
        assert (np.diff(relevance) <= 0).all()


def test_the_best_image_climbs_from_the_end_to_the_start() -> None:
    quality = np.arange(10, dtype=np.float32)
    reranking = Reranking(10, None, options(4, 2, "end-to-start"))
    while (images := reranking.next_window()) is not None:
        reranking.accept(quality[images])
    order, _ = reranking.result()
    assert order[:2].tolist() == [9, 8]


def test_alpha_weighs_the_first_stage() -> None:
    logits = np.array([0.0, 5.0], np.float32)
    first_stage = np.array([0.9, 0.1], np.float32)
    for alpha, expected in ((0.0, [1, 0]), (1.0, [0, 1])):
        reranking = Reranking(2, first_stage, options(2, 1, "end-to-start", alpha))
        reranking.accept(logits)
        assert reranking.result()[0].tolist() == expected


def test_equal_scores_keep_the_order_that_came_in() -> None:
    reranking = Reranking(5, None, options(5, 1, "end-to-start"))
    reranking.accept(np.zeros(5, np.float32))
    assert reranking.result()[0].tolist() == [0, 1, 2, 3, 4]


def test_scores_must_fit_the_window() -> None:
    reranking = Reranking(3, None, options(2, 1, "end-to-start"))
    with pytest.raises(ValueError, match="2 images but logits"):
        reranking.accept(np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="2 windows have no scores"):
        reranking.result()


@given(plans(), st.randoms(use_true_random=False))
def test_where_windows_do_not_matter_the_list_is_ordered_as_a_whole(
    plan: tuple[int, int, int, Direction], random: Random
) -> None:
    """An image has the same score in each of its windows."""
    count, window, stride, direction = plan
    # Apart by more than the sigmoid rounds to.
    scores = np.array([random.randrange(1000) / 1000 for _ in range(count)], np.float32)
    how = replace(options(window, stride, direction), listwise=False)
    reranking = Reranking(count, None, how)
    while (images := reranking.next_window()) is not None:
        reranking.accept(scores[images])
    order, relevance = reranking.result()
    np.testing.assert_array_equal(scores[order], np.sort(scores)[::-1])
    np.testing.assert_allclose(relevance, 1 / (1 + np.exp(-scores[order])), rtol=1e-6)
