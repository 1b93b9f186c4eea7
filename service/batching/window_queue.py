"""The queue of windows: one owner of who waits, who is admitted, and who shares a forward pass.

Pure: no I/O, no clock, no thread. A list is one unit, admitted whole or refused whole, and its
windows become ready one after another, each re-ordering what the next one is cut from.

**Fairness.** Windows go in the order in which they became ready, so a list that has had a pass
goes behind all lists that wait. A window that becomes ready while n others wait is in one of the
next n + 1 passes, whoever comes later: a list of k windows waits for at most k times as many
foreign passes as there are lists.

**Time.** A list is refused where it would miss its deadline, estimating that in each of its rounds
every other list has one pass before it. A window whose list can no longer be done in time is not
started.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from service.batching.job import Job
from service.batching.speed import BatchCost, Speed

LONGEST_PASS = 0.1
"""Longest estimated seconds of a pass that several windows share: new lists wait for it."""

_LOOKED_AT = 128
"""How many windows, the longest waiting, are considered for a batch: each look costs time."""


@dataclass(eq=False)
class Batch:
    """Jobs whose windows share a pass. `cost`: of that pass; `estimate`: seconds of the windows one
    by one; `late`: jobs that can no longer be done in time."""

    cost: BatchCost
    jobs: list[Job] = field(default_factory=list)
    estimate: float = 0.0
    late: list[Job] = field(default_factory=list)

    def only(self, job: Job) -> Batch:
        """The batch with this one of its jobs."""
        speed = self.cost.speed
        return Batch(BatchCost(speed).joined(job.cost), [job], speed.alone(job.cost))


class WindowQueue:
    """`tokens`: of all admitted lists; `round_seconds`: estimated, one pass for each of them, none
    shared."""

    def __init__(self, speed: Speed, *, max_batch_tokens: int, max_queue_tokens: int) -> None:
        self._speed = speed
        self._max_batch_tokens = max_batch_tokens
        self._max_queue_tokens = max_queue_tokens
        self._held: dict[Job, float] = {}  # estimated seconds of the next pass
        self._ready: dict[Job, None] = {}
        self.tokens = 0
        self.round_seconds = 0.0

    def has_room(self, job: Job) -> bool:
        """A list larger than the whole queue is admitted when the queue is empty: otherwise it
        could never be served."""
        return not self.tokens or self.tokens + job.held_tokens <= self._max_queue_tokens

    @property
    def full(self) -> bool:
        return self.tokens >= self._max_queue_tokens

    def own_seconds(self, job: Job) -> float:
        """Estimated seconds of the job's own passes."""
        return job.windows_left * self._speed.alone(job.cost)

    def others_seconds(self, job: Job, incoming: float) -> float:
        """Estimated seconds of others' passes before the job's own, if it comes now: one round for
        each of its own. `incoming`: seconds a round by requests that are still being parsed."""
        return job.windows_left * (self.round_seconds + incoming)

    def admit(self, job: Job) -> None:
        """Takes a place in the queue until `release`."""
        self._held[job] = 0.0
        self.tokens += job.held_tokens
        self._estimate(job)

    def add(self, job: Job) -> None:
        """Queues the window of an admitted job that has begun."""
        if job not in self._held or job in self._ready:
            raise ValueError("a job becomes ready once, while it is held")
        self._estimate(job)
        self._ready[job] = None

    def release(self, job: Job) -> None:
        """Gives the place back and drops the job's window if it still waits. Idempotent."""
        if job in self._held:
            self._ready.pop(job, None)
            self.tokens -= job.held_tokens
            self.round_seconds -= self._held.pop(job)
            if not self._held:
                self.round_seconds = 0.0  # rounding adds up

    def take(self, now: float = -math.inf, pace: float = 1.0) -> Batch:
        """The next batch: the window that has waited longest, and others that have waited long and
        cost less together than apart. Windows in the batch, and late ones, leave the queue. An
        empty batch without late jobs means that nothing is ready. `now`: seconds of the deadlines'
        clock; `pace`: seconds for every second estimated."""
        batch = Batch(BatchCost(self._speed))
        ends_by = math.inf
        for job in list(islice(self._ready, _LOOKED_AT)):
            alone = self._held[job]
            last_pass = job.deadline - pace * alone * (job.windows_left - 1)
            if now + pace * alone > last_pass:
                del self._ready[job]
                batch.late.append(job)
                continue
            joined, estimate = batch.cost.joined(job.cost), batch.estimate + alone
            if batch.jobs and not (
                joined.padded_tokens <= self._max_batch_tokens
                and joined.seconds <= min(LONGEST_PASS, batch.cost.seconds + alone)
                and now + pace * estimate <= min(ends_by, last_pass)
            ):
                continue
            del self._ready[job]
            batch.jobs.append(job)
            batch.cost, batch.estimate = joined, estimate
            ends_by = min(ends_by, last_pass)
        return batch

    def accept(self, job: Job, logits: NDArray[np.float32]) -> None:
        """Takes the scores of the job's window; ignores a job that has been released."""
        if job in self._held:
            job.accept(logits)
            self._estimate(job)
            if not job.finished:
                self._ready[job] = None

    def _estimate(self, job: Job) -> None:
        seconds = 0.0 if job.finished else self._speed.alone(job.cost)
        self.round_seconds += seconds - self._held[job]
        self._held[job] = seconds
