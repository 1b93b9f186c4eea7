"""The queue: who is admitted, who shares a batch; all get their turn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.batching.job import Job
from service.batching.speed import Speed
from service.batching.window_queue import LONGEST_PASS
from tests.factories import load_sized, tiny_config
from tests.unit.service.batching.jobs import (
    CONFIG,
    HELD_PER_IMAGE,
    added,
    begun,
    job,
    queue,
    score,
)

SLOTS = 1 + CONFIG.matches_per_image


def test_windows_of_different_jobs_share_a_batch_in_their_order() -> None:
    waiting = queue()
    jobs = [added(waiting, 4) for _ in range(3)]
    assert waiting.take().jobs == jobs
    assert waiting.take().jobs == []


def test_a_batch_keeps_to_its_budget() -> None:
    waiting = queue(max_batch_tokens=2 * 5 * SLOTS)
    for _ in range(5):
        added(waiting, 4)
    assert [len(waiting.take().jobs) for _ in range(3)] == [2, 2, 1]


def test_a_window_over_the_budget_goes_alone() -> None:
    waiting = queue(max_batch_tokens=1)
    added(waiting, 4)
    assert len(waiting.take().jobs) == 1


def test_a_shared_pass_is_short() -> None:
    each = LONGEST_PASS / 2.5
    waiting = queue(speed=Speed(per_pass=0, per_window=each, per_unit=1e-9))
    for _ in range(5):
        added(waiting, 4)
    assert [len(waiting.take().jobs) for _ in range(3)] == [2, 2, 1]


def test_windows_share_where_that_adds_less_padding_than_a_pass_costs() -> None:
    # A pass costs as much as 100 tokens; a window of 9 has 10 images of 4 tokens.
    speed = Speed(per_pass=1e-3, per_window=0, per_unit=1e-5)
    waiting = queue(max_batch_tokens=10_000, speed=speed)
    long, near, short = (added(waiting, images, 40) for images in (40, 30, 1))
    other = added(waiting, 40, 40)
    # 1 of 40 would be padded by 156 tokens, 30 of 40 by 40.
    assert waiting.take().jobs == [long, near, other]
    assert waiting.take().jobs == [short]


def test_the_padding_of_others_is_not_held_against_a_window() -> None:
    """All that counts is what joining adds: a batch that is half padding lets a full one in."""
    speed = Speed(per_pass=4e-4, per_window=0, per_unit=1e-5)
    waiting = queue(max_batch_tokens=10_000, speed=speed)
    jobs = [added(waiting, images, 40) for images in (10, 1, 1, 1, 10)]
    assert waiting.take().jobs == jobs


@pytest.mark.parametrize("most", [5, 48])
def test_images_with_few_locals_share_with_those_that_have_many(most: int) -> None:
    """The network reads as many tokens of them: nothing is padded."""
    config = tiny_config(descriptors_per_image=most)
    waiting = queue(max_batch_tokens=100_000)
    for rows in range(4, 4 + 16):
        added(waiting, 4, rows=min(rows, most), config=config)
    assert len(waiting.take().jobs) > 8


def test_pairs_of_few_locals_do_not_share_with_those_that_have_many() -> None:
    config = load_sized().config
    waiting = queue(max_batch_tokens=100_000, speed=Speed(1e-3, 0, 1e-5))
    many, few = (added(waiting, 4, rows=rows, config=config) for rows in (200, 3))
    other = added(waiting, 4, rows=190, config=config)
    assert waiting.take().jobs == [many, other]
    assert waiting.take().jobs == [few]


def test_who_has_waited_longest_always_goes_first() -> None:
    waiting = queue()
    short = added(waiting, 1)
    for _ in range(5):
        added(waiting, 4)
    assert waiting.take().jobs[0] is short


def test_who_has_had_a_pass_goes_behind_who_has_had_none() -> None:
    waiting = queue(max_batch_tokens=1)
    long, *others = added(waiting, 400, 2), added(waiting, 4), added(waiting, 4)
    batch = waiting.take()
    assert batch.jobs == [long]
    late_comer = added(waiting, 4)
    score(waiting, batch)
    assert [waiting.take().jobs for _ in range(4)] == [[o] for o in [*others, late_comer, long]]


@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=12),
    comes_at=st.lists(st.integers(0, 20), min_size=12, max_size=12),
    budget=st.sampled_from([1, 60, 500]),
)
@settings(max_examples=60)
def test_no_window_waits_for_more_passes_than_windows_were_ahead(
    sizes: list[int], comes_at: list[int], budget: int
) -> None:
    """Whatever comes later, and however long the lists are that it competes with."""
    waiting = queue(max_batch_tokens=budget)
    coming = sorted(zip(comes_at, sizes, strict=False), reverse=True)
    most_passes: dict[Job, int] = {}  # until its window must have been in one

    def joins(one: Job, ready: int) -> None:
        most_passes[one] = ready + 1

    for place in range(10_000):
        while coming and coming[-1][0] <= place:
            ready = len(most_passes)
            joins(added(waiting, coming.pop()[1], 2), ready)
        batch = waiting.take()
        if not batch.jobs and not coming:
            break
        for one in batch.jobs:
            assert most_passes.pop(one) >= 1
        for one in most_passes:
            most_passes[one] -= 1
            assert most_passes[one] >= 1
        for one in batch.jobs:
            waiting.accept(one, np.zeros(len(one.window.gallery), np.float32))
            if one.finished:
                waiting.release(one)
            else:
                joins(one, len(most_passes))
    assert not most_passes
    assert waiting.tokens == 0


def test_a_list_is_admitted_whole_or_refused_whole() -> None:
    waiting = queue(max_queue_tokens=10 * HELD_PER_IMAGE)
    first, second, third = job(5), job(4), job(3)
    assert waiting.has_room(first)
    waiting.admit(first)
    assert not waiting.has_room(second)
    assert waiting.tokens == 6 * HELD_PER_IMAGE
    assert waiting.has_room(third)
    waiting.admit(third)
    assert waiting.full
    waiting.release(first)
    waiting.release(first)
    assert waiting.tokens == 4 * HELD_PER_IMAGE


def test_a_list_larger_than_the_queue_gets_in_when_it_is_empty() -> None:
    waiting = queue(max_queue_tokens=100)
    huge = job(1000)
    assert waiting.has_room(huge)
    waiting.admit(huge)
    assert not waiting.has_room(job(1))
    waiting.release(huge)
    assert waiting.has_room(job(1))


def test_windows_of_an_ended_request_are_dropped_before_they_are_computed() -> None:
    waiting = queue()
    gone, stays = added(waiting, 4), added(waiting, 4)
    waiting.release(gone)
    assert waiting.take().jobs == [stays]


def test_scores_for_an_ended_request_are_ignored() -> None:
    waiting = queue()
    gone = added(waiting, 4)
    waiting.take()
    waiting.release(gone)
    waiting.accept(gone, np.zeros(4, np.float32))
    assert not gone.finished
    assert waiting.take().jobs == []


def test_a_job_becomes_ready_once() -> None:
    waiting = queue()
    one = added(waiting, 2)
    with pytest.raises(ValueError, match="once"):
        waiting.add(one)
    with pytest.raises(ValueError, match="once"):
        waiting.add(begun(job(2), 2))
