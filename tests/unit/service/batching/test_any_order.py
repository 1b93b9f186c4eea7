"""The queue under any order of events."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from service.batching.job import Job
from service.batching.window_queue import Batch
from tests.unit.service.batching.jobs import (
    HELD_PER_IMAGE,
    SPEED,
    begun,
    job,
    queue,
)


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
            assert batch.cost.seconds <= batch.estimate + 1e-9
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
