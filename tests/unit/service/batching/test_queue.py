"""The queue: who is admitted, who shares a batch, and that nobody is forgotten."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from model.windows import RerankOptions
from service.batching.job import Job, most_tokens
from service.batching.queue import LEAST_FILLED, Ticket, WindowQueue, padded_tokens
from tests.factories import image, tiny_config

CONFIG = tiny_config()
PER_IMAGE = CONFIG.descriptors_per_image + CONFIG.extra_tokens
RNG = np.random.default_rng(0)


def queue(max_batch_tokens: int = 500, max_queue_tokens: int = 10_000) -> WindowQueue:
    return WindowQueue(
        max_batch_tokens=max_batch_tokens,
        max_queue_tokens=max_queue_tokens,
        descriptors_per_image=CONFIG.descriptors_per_image,
        extra_tokens=CONFIG.extra_tokens,
    )


def job(images: int, window: int = 4) -> Job:
    options = RerankOptions(0.0, 1.0, window, max(1, window // 2), "end-to-start")
    gallery = [image(RNG, CONFIG) for _ in range(images)]
    return Job(image(RNG, CONFIG), gallery, None, options)


def added(waiting: WindowQueue, images: int, window: int = 4) -> Ticket:
    ticket = waiting.admit(1)
    assert ticket is not None
    waiting.add(ticket, job(images, window))
    return ticket


def test_windows_of_different_jobs_share_a_batch_in_their_order() -> None:
    waiting = queue()
    tickets = [added(waiting, 4) for _ in range(3)]
    assert [ready.ticket for ready in waiting.take()] == tickets
    assert waiting.take() == []


def test_a_batch_keeps_to_its_budget() -> None:
    one = 5 * PER_IMAGE
    waiting = queue(max_batch_tokens=2 * one)
    for _ in range(5):
        added(waiting, 4)
    assert [len(waiting.take()) for _ in range(3)] == [2, 2, 1]


def test_a_window_over_the_budget_goes_alone() -> None:
    waiting = queue(max_batch_tokens=1)
    added(waiting, 4)
    assert len(waiting.take()) == 1


def test_windows_of_unlike_length_do_not_share() -> None:
    waiting = queue()
    long, short, other = added(waiting, 9, 9), added(waiting, 1), added(waiting, 9, 9)
    assert [ready.ticket for ready in waiting.take()] == [long, other]
    assert [ready.ticket for ready in waiting.take()] == [short]


def test_the_oldest_always_goes_first() -> None:
    waiting = queue()
    short = added(waiting, 1)
    for _ in range(5):
        added(waiting, 4)
    assert waiting.take()[0].ticket is short


def test_the_next_window_of_an_old_job_goes_before_a_young_one() -> None:
    waiting = queue(max_batch_tokens=1)
    old, young = added(waiting, 8), added(waiting, 4)
    (first,) = waiting.take()
    assert first.ticket is old
    assert waiting.accept(old, np.zeros(4, np.float32)) is None
    assert waiting.take()[0].ticket is old
    assert waiting.take()[0].ticket is young


def test_a_list_is_admitted_whole_or_refused_whole() -> None:
    waiting = queue(max_queue_tokens=100)
    first = waiting.admit(60)
    assert first is not None
    assert waiting.admit(41) is None
    assert waiting.tokens == 60
    assert waiting.admit(40) is not None
    assert waiting.full
    waiting.release(first)
    waiting.release(first)
    assert waiting.tokens == 40


def test_a_list_larger_than_the_queue_gets_in_when_it_is_empty() -> None:
    waiting = queue(max_queue_tokens=100)
    huge = waiting.admit(1000)
    assert huge is not None
    assert waiting.admit(1) is None
    waiting.release(huge)
    assert waiting.admit(1) is not None


def test_windows_of_an_ended_request_are_dropped_before_they_are_computed() -> None:
    waiting = queue()
    gone, stays = added(waiting, 4), added(waiting, 4)
    waiting.release(gone)
    assert [ready.ticket for ready in waiting.take()] == [stays]


def test_scores_for_an_ended_request_are_ignored() -> None:
    waiting = queue()
    gone = added(waiting, 4)
    waiting.take()
    waiting.release(gone)
    assert waiting.accept(gone, np.zeros(4, np.float32)) is None


def test_a_ticket_is_for_one_job() -> None:
    waiting = queue()
    ticket = added(waiting, 2)
    with pytest.raises(ValueError, match="one job"):
        waiting.add(ticket, job(2))


@given(st.integers(1, 60), st.integers(1, 20))
def test_the_bound_on_tokens_is_never_exceeded(images: int, window: int) -> None:
    options = RerankOptions(0.0, 1.0, window, max(1, window // 2), "end-to-start-to-end")
    gallery = [image(RNG, CONFIG) for _ in range(images)]
    one = Job(image(RNG, CONFIG), gallery, None, options)
    waiting = queue()
    ticket = waiting.admit(1)
    assert ticket is not None
    waiting.add(ticket, one)
    used = 0
    while batch := waiting.take():
        used += sum(ready.tokens for ready in batch)
        waiting.accept(ticket, np.zeros(len(batch[0].window.gallery), np.float32))
    assert one.finished
    assert used <= most_tokens(images, options, PER_IMAGE)


class AnyOrderOfEvents(RuleBasedStateMachine):
    """Admission, arrival, computing, scores, failures and cancellations in any order: what is
    held is counted, batches obey the rules, and every job that is not released gets finished."""

    jobs: Bundle[Ticket] = Bundle("jobs")

    def __init__(self) -> None:
        super().__init__()
        self.queue = queue(max_batch_tokens=200, max_queue_tokens=300)
        self.live: dict[Ticket, Job | None] = {}
        self.computing: list[tuple[Ticket, int]] = []

    @rule(target=jobs, tokens=st.integers(1, 120))
    def admit(self, tokens: int) -> Ticket:
        held = self.queue.tokens
        ticket = self.queue.admit(tokens)
        assert (ticket is None) == (held > 0 and held + tokens > 300)
        if ticket is None:
            return Ticket(0, 0)
        self.live[ticket] = None
        return ticket

    @rule(ticket=jobs, images=st.integers(1, 9))
    def arrive(self, ticket: Ticket, images: int) -> None:
        if ticket in self.live and self.live[ticket] is None:
            self.live[ticket] = job(images)
            self.queue.add(ticket, self.live[ticket] or job(images))

    @rule()
    def compute(self) -> None:
        if self.computing:
            return
        batch = self.queue.take()
        if len(batch) > 1:
            assert padded_tokens(batch) <= 200
            assert sum(w.tokens for w in batch) / padded_tokens(batch) >= LEAST_FILLED
        assert all(ready.ticket in self.live for ready in batch)
        self.computing = [(ready.ticket, len(ready.window.gallery)) for ready in batch]

    @rule(fails=st.booleans())
    def deliver(self, fails: bool) -> None:
        for ticket, size in self.computing:
            if fails:
                self.queue.release(ticket)
                self.live.pop(ticket, None)
            elif self.queue.accept(ticket, np.zeros(size, np.float32)) is not None:
                assert ticket in self.live
                self.queue.release(ticket)
                del self.live[ticket]
        self.computing = []

    @rule(ticket=consumes(jobs))
    def cancel(self, ticket: Ticket) -> None:
        self.queue.release(ticket)
        self.live.pop(ticket, None)

    @invariant()
    def tokens_are_those_of_who_is_there(self) -> None:
        assert self.queue.tokens == sum(ticket.tokens for ticket in self.live)

    def teardown(self) -> None:
        self.deliver(False)
        for ticket in [t for t, arrived in self.live.items() if arrived is None]:
            self.cancel(ticket)
        for _ in range(200):
            self.compute()
            self.deliver(False)
        assert not self.live
        assert self.queue.tokens == 0


AnyOrderOfEvents.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestAnyOrderOfEvents = AnyOrderOfEvents.TestCase
