"""The queue: who is admitted, who shares a batch, that all get their turn and nobody is late."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from model.config import ModelConfig
from model.windows import RerankOptions
from service.batching.job import Job
from service.batching.queue import LONGEST_PASS, Batch, WindowQueue
from service.batching.speed import Speed
from tests.factories import image, load_sized, tiny_config

CONFIG = tiny_config()
HELD_PER_IMAGE = CONFIG.descriptors_per_image + CONFIG.extra_tokens
SPEED = Speed(per_pass=0.003, per_window=0.002, per_unit=1e-5)
SLOTS = 1 + CONFIG.matches_per_image
RNG = np.random.default_rng(0)


def queue(
    max_batch_tokens: int = 500, max_queue_tokens: int = 10_000, speed: Speed = SPEED
) -> WindowQueue:
    return WindowQueue(speed, max_batch_tokens=max_batch_tokens, max_queue_tokens=max_queue_tokens)


def job(
    images: int,
    window: int = 4,
    *,
    deadline: float = math.inf,
    rows: int | None = None,
    config: ModelConfig = CONFIG,
) -> Job:
    options = RerankOptions(0.0, 1.0, window, max(1, window // 2), "end-to-start")
    return Job(config, images, options, deadline)


def begun(one: Job, images: int, rows: int | None = None, config: ModelConfig = CONFIG) -> Job:
    query, *gallery = [image(RNG, config, rows) for _ in range(1 + images)]
    one.begin(query, gallery, None)
    return one


def added(
    waiting: WindowQueue,
    images: int,
    window: int = 4,
    *,
    deadline: float = math.inf,
    rows: int | None = None,
    config: ModelConfig = CONFIG,
) -> Job:
    one = begun(job(images, window, deadline=deadline, config=config), images, rows, config)
    waiting.admit(one)
    waiting.add(one)
    return one


def score(waiting: WindowQueue, batch: Batch) -> None:
    for one in batch.jobs:
        waiting.accept(one, np.zeros(len(one.window.gallery), np.float32))
        if one.finished:
            waiting.release(one)


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


def test_a_window_that_cannot_be_done_in_time_is_not_started() -> None:
    waiting = queue()
    alone = SPEED.alone(job(4).cost)
    late = added(waiting, 4, deadline=10 + 0.9 * alone)
    timely = added(waiting, 4, deadline=10 + 1.1 * alone)
    batch = waiting.take(now=10)
    assert (batch.jobs, batch.late) == ([timely], [late])
    waiting.release(late)
    assert waiting.take(now=10).late == []


def test_a_list_is_given_up_while_passes_are_left_that_it_has_no_time_for() -> None:
    waiting = queue(max_batch_tokens=1)
    two_windows = job(6)
    alone = SPEED.alone(two_windows.cost)
    late = added(waiting, 6, deadline=1.9 * alone)
    assert late.windows_left == 2
    assert waiting.take(now=0).late == [late]
    assert waiting.take(now=0, pace=0.5).jobs == []


def test_company_makes_nobody_late() -> None:
    waiting = queue()
    alone = SPEED.alone(job(4).cost)
    first = added(waiting, 4, deadline=1.5 * alone)
    second = added(waiting, 4)
    assert waiting.take(now=0).jobs == [first]
    assert waiting.take(now=0).jobs == [second]


@given(
    st.lists(
        st.tuples(st.integers(1, 12), st.floats(0, 0.05), st.floats(0.02, 1)),
        min_size=1,
        max_size=60,
    )
)
@settings(max_examples=60)
def test_lists_of_one_window_that_get_in_are_done_in_time(
    coming: list[tuple[int, float, float]],
) -> None:
    """Where the speed is as it was measured, and lists are refused by it: nobody is let in and
    then given up, however many come."""
    waiting, now = queue(max_queue_tokens=10**9), 0.0
    busy_until = 0.0
    batch = Batch(waiting.take().cost)
    admitted = 0

    def run_until(end: float) -> None:
        nonlocal batch, busy_until
        while busy_until <= end:
            for one in batch.jobs:
                assert busy_until <= one.deadline
            score(waiting, batch)
            batch = waiting.take(busy_until)
            assert batch.late == []
            if not batch.jobs:
                busy_until = end
                return
            busy_until += batch.cost.seconds

    for images, pause, patience in coming:
        now += pause
        run_until(now)
        one = begun(job(images, 12, deadline=now + patience), images)
        if waiting.wait_seconds(one, 0) + waiting.own_seconds(one) <= patience:
            waiting.admit(one)
            waiting.add(one)
            admitted += 1
            if busy_until <= now and not batch.jobs:
                busy_until = now
                run_until(now)
    run_until(now + 1000)
    assert waiting.tokens == 0


def test_what_is_reckoned_is_the_passes_of_others_and_its_own() -> None:
    waiting = queue()
    new, alone = job(6), SPEED.alone(job(4).cost)
    assert waiting.wait_seconds(new, 0) == 0
    assert waiting.own_seconds(new) == pytest.approx(2 * alone)
    jobs = [added(waiting, 4) for _ in range(3)]
    # A round of the three before each of its two.
    assert waiting.wait_seconds(new, 0) == pytest.approx(6 * alone)
    assert waiting.wait_seconds(new, 0.5) == pytest.approx(6 * alone + 1)
    for one in jobs:
        waiting.release(one)
    assert waiting.wait_seconds(new, 0) == 0


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


class AnyOrderOfEvents(RuleBasedStateMachine):
    """Admission, arrival, computing, scores, failures and cancellations in any order: what is
    held is counted, batches obey the rules, and every job that is not released gets finished."""

    jobs: Bundle[Job] = Bundle("jobs")

    def __init__(self) -> None:
        super().__init__()
        self.queue = queue(max_batch_tokens=60, max_queue_tokens=300)
        self.live: dict[Job, bool] = {}  # whether its images are there
        self.computing = Batch(self.queue.take().cost)

    @rule(target=jobs, images=st.integers(1, 9))
    def admit(self, images: int) -> Job:
        one = job(images)
        held = self.queue.tokens
        room = self.queue.has_room(one)
        assert room == (not held or held + one.held_tokens <= 300)
        if room:
            self.queue.admit(one)
            self.live[one] = False
        return one

    @rule(one=jobs)
    def arrive(self, one: Job) -> None:
        if self.live.get(one) is False:
            images = one.held_tokens // HELD_PER_IMAGE - 1
            self.queue.add(begun(one, images))
            self.live[one] = True

    @rule()
    def compute(self) -> None:
        if self.computing.jobs:
            return
        batch = self.queue.take()
        if len(batch.jobs) > 1:
            assert batch.cost.padded_tokens <= 60
            assert batch.cost.seconds <= batch.reckoned + 1e-9
        assert all(one in self.live for one in batch.jobs)
        self.computing = batch

    @rule(fails=st.booleans())
    def deliver(self, fails: bool) -> None:
        for one in self.computing.jobs:
            if fails:
                self.queue.release(one)
                self.live.pop(one, None)
                continue
            self.queue.accept(one, np.zeros(len(one.window.gallery), np.float32))
            if one.finished:
                assert one in self.live
                self.queue.release(one)
                del self.live[one]
        self.computing.jobs = []

    @rule(one=consumes(jobs))
    def cancel(self, one: Job) -> None:
        self.queue.release(one)
        self.live.pop(one, None)

    @invariant()
    def what_is_counted_is_who_is_there(self) -> None:
        assert self.queue.tokens == sum(one.held_tokens for one in self.live)
        expected = sum(SPEED.alone(one.cost) for one in self.live)
        assert self.queue.round_seconds == pytest.approx(expected, abs=1e-9)

    def teardown(self) -> None:
        self.deliver(False)
        for one in [one for one, arrived in self.live.items() if not arrived]:
            self.cancel(one)
        for _ in range(200):
            self.compute()
            self.deliver(False)
        assert not self.live
        assert self.queue.tokens == 0


AnyOrderOfEvents.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestAnyOrderOfEvents = AnyOrderOfEvents.TestCase
