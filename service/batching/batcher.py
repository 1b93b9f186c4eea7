"""Takes batches from the queue to the worker, and their scores back to the requests."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import structlog
from numpy.typing import NDArray
from opentelemetry.trace import Tracer

from service.api.errors import ApiError, DeadlineExceededError, OverloadedError, UnavailableError
from service.batching.job import Job
from service.batching.speed import Pace
from service.batching.window_queue import Batch, WindowQueue
from service.batching.worker import Worker
from service.watch.metrics import (
    BATCH_PADDING,
    BATCH_TOKENS,
    BATCH_WINDOWS,
    QUEUE_TOKENS,
    REJECTED,
)
from service.watch.tracing import NOT_TRACED, WindowSpans, window_spans

log = structlog.get_logger(__name__)

TRUST = 0.8
"""The share of the time until a deadline that an estimated wait may fill: estimates are not
exact, and the answer has to travel back to the client."""

EARLY_TRUST = 0.4
"""The same for a list that is not parsed yet. In an overload the wait is always close to what is
allowed, and it varies: without a distance between the two, many lists would be parsed, then
refused. A shorter queue costs no throughput as long as it is not empty."""

_LONGEST_RETRY_AFTER = 60


class IncomingRequest:
    """Counts a request as incoming until it ends, as does a block with it. `checked`: whether it
    has been found to be in time."""

    def __init__(self, batcher: Batcher, *, checked: bool) -> None:
        self.checked = checked
        self._batcher: Batcher | None = batcher
        batcher.incoming += 1

    def end(self) -> None:
        """Idempotent."""
        if self._batcher is not None:
            self._batcher.incoming -= 1
            self._batcher = None

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self.end()


@dataclass(eq=False)
class _Pass:
    """A batch that is with the worker. It begins when the one before it ends: `began` in seconds of
    the jobs' clock, `started` in those of `time.perf_counter`."""

    batch: Batch
    began: float = math.inf
    started: float = math.inf


class Batcher:
    """Runs batch after batch, without a timer: while the device computes one batch, the next one
    gathers. The worker may get a batch before the device is free, so that it need not wait for the
    event loop. Every request that enters `score` leaves it with its result, with an error, or
    because its caller was cancelled (deadline, disconnect).

    `incoming`: requests whose body has arrived and is not parsed yet."""

    def __init__(
        self,
        queue: WindowQueue,
        worker: Worker,
        tracer: Tracer = NOT_TRACED,
        recheck_seconds: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`recheck_seconds`: how often a device that failed is tried again. `clock`: that of the
        jobs' deadlines."""
        self._queue = queue
        self._worker = worker
        self._tracer = tracer
        self._recheck_seconds = recheck_seconds
        self._clock = clock
        self._pace = Pace()
        self._window_seconds = 0.0
        self._passes: list[_Pass] = []
        self.incoming = 0
        self._answers: dict[Job, asyncio.Future[None]] = {}
        self._spans: dict[Job, WindowSpans] = {}
        self._work = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(self._ended)

    async def close(self) -> None:
        """Requests that still wait get the error `shutting_down`."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    @property
    def problem(self) -> str | None:
        """Why no request can be scored; None where they can."""
        if self._task is None or self._task.done():
            return "the batcher is not running"
        if self._worker.stuck:
            return "the worker is stuck"
        return self._worker.problem

    @property
    def wait_seconds(self) -> float:
        """Estimated wait of a small list that comes now."""
        rounds = self._queue.round_seconds + self._incoming_seconds
        return self._pace.factor(self._clock()) * rounds

    @property
    def _incoming_seconds(self) -> float:
        """Estimated seconds of a window of each incoming request."""
        return self.incoming * self._window_seconds

    def refuse_hopeless(self, deadline: float) -> None:
        """Called before any work is done. Raises OverloadedError if the queue is full or the list
        would probably miss its deadline, and DeadlineExceededError if the deadline has passed."""
        wait, left = self.wait_seconds, deadline - self._clock()
        if self._queue.full:
            self._refuse("queue_full", "the queue is full", wait)
        self._refuse_late(left, wait, 0.0, EARLY_TRUST)

    def incoming_request(self, deadline: float) -> IncomingRequest:
        """One that is about to be parsed. Raises what `refuse_hopeless` raises."""
        self.refuse_hopeless(deadline)
        return IncomingRequest(self, checked=True)

    @contextmanager
    def admit(self, job: Job) -> Iterator[None]:
        """A place in the queue while the block runs. Raises OverloadedError where there is none or
        the wait is too long, DeadlineExceededError where the list alone takes too long."""
        now = self._clock()
        pace = self._pace.factor(now)
        wait = pace * self._queue.others_seconds(job, self._incoming_seconds)
        if not self._queue.has_room(job):
            self._refuse("queue_full", "the queue is full", wait)
        self._refuse_late(job.deadline - now, wait, pace * self._queue.own_seconds(job), TRUST)
        self._queue.admit(job)
        try:
            QUEUE_TOKENS.set(self._queue.tokens)
            yield
        finally:
            self._queue.release(job)
            QUEUE_TOKENS.set(self._queue.tokens)

    async def score(self, job: Job) -> None:
        """Re-rank the whole list of an admitted job that has begun. Raises ApiError."""
        if self._task is None or self._task.done():
            raise UnavailableError("the service is shutting down", code="shutting_down")
        with window_spans(self._tracer) as spans:
            answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._answers[job] = answer
            if spans is not None:
                self._spans[job] = spans
            try:
                self._queue.add(job)
                self._work.set()
                await answer
            finally:
                del self._answers[job]
                self._spans.pop(job, None)

    async def _run(self) -> None:
        places = asyncio.Semaphore(self._worker.passes_at_once)
        async with asyncio.TaskGroup() as passes:
            while True:
                await places.acquire()
                task = passes.create_task(self._compute(await self._next_batch()))
                task.add_done_callback(lambda _: places.release())
                # It goes to the worker before the next batch is taken.
                await asyncio.sleep(0)

    async def _next_batch(self) -> Batch:
        """Waits until there is one."""
        while True:
            now = self._clock()
            pace = self._pace.factor(now)
            batch = self._queue.take(max(now, self._free_at(pace)), pace)
            for job in batch.late:
                self._fail(job, DeadlineExceededError("it would not be done within timeout_ms"))
            if batch.jobs:
                return batch
            if self._worker.problem is not None:
                # Nothing is admitted now, so no request will show that the device is back.
                await asyncio.sleep(self._recheck_seconds)
                await self._worker.check()
            elif not batch.late:
                self._work.clear()
                await self._work.wait()

    def _free_at(self, pace: float) -> float:
        """When the device is done with what the worker has."""
        if not self._passes:
            return -math.inf
        return self._passes[0].began + pace * sum(one.batch.estimate for one in self._passes)

    async def _compute(self, batch: Batch) -> None:
        one = _Pass(batch)
        self._passes.append(one)
        if len(self._passes) == 1:
            self._begin(one)
        try:
            scores = await self._worker.score([job.window for job in batch.jobs])
            scored = list(zip(batch.jobs, scores, strict=True))
        # The worker runs the model, maybe on CUDA: what fails there must not end the batcher.
        except Exception:
            log.exception("batch_failed", windows=len(batch.jobs))
            self._end(one)
            await self._worker.check()
            await self._after_failure(batch)
            return
        seconds = time.perf_counter() - one.started
        now = self._clock()
        self._pace.learn(batch.estimate, one.began, now)
        self._end(one)
        if not self._passes:
            self._pace.rest(now)
        window_seconds = batch.estimate / len(batch.jobs)
        self._window_seconds += 0.1 * (window_seconds - self._window_seconds)
        BATCH_WINDOWS.observe(len(batch.jobs))
        BATCH_TOKENS.observe(batch.cost.padded_tokens)
        BATCH_PADDING.observe(1 - batch.cost.tokens / batch.cost.padded_tokens)
        for job, logits in scored:
            try:
                self._deliver(job, logits, one.started, seconds)
            # Nor may a list that cannot take its scores.
            except Exception:
                log.exception("delivery_failed")
                self._fail(job, ApiError("the list could not be scored"))
        # Lists of several windows have another one ready.
        self._work.set()

    def _begin(self, one: _Pass) -> None:
        one.began, one.started = self._clock(), time.perf_counter()
        self._mark_begin(one.batch, one.started)

    def _end(self, one: _Pass) -> None:
        self._passes.remove(one)
        if self._passes:
            self._begin(self._passes[0])

    async def _after_failure(self, batch: Batch) -> None:
        """Scores the windows again, each alone: one that fails must not fail the others. The time
        that a failed pass took says nothing of the speed."""
        if len(batch.jobs) > 1 and self._worker.problem is None:
            for job in batch.jobs:
                if job in self._answers:
                    await self._compute(batch.only(job))
            return
        for job in batch.jobs:
            self._fail(job, ApiError("the list could not be scored"))

    def _deliver(
        self, job: Job, logits: NDArray[np.float32], started: float, seconds: float
    ) -> None:
        answer = self._answers.get(job)
        if answer is None or answer.done():
            return
        job.seconds += seconds
        spans = self._spans.get(job)
        if spans is not None:
            spans.end(started + seconds)
        self._queue.accept(job, logits)
        if job.finished:
            answer.set_result(None)

    def _fail(self, job: Job, error: ApiError) -> None:
        answer = self._answers.get(job)
        if answer is not None and not answer.done():
            answer.set_exception(error)

    def _mark_begin(self, batch: Batch, at: float) -> None:
        for job in batch.jobs:
            spans = self._spans.get(job)
            if spans is not None:
                attributes = {
                    "locore.images": job.cost.images - 1,
                    "locore.tokens": job.cost.tokens,
                    "locore.batch.windows": len(batch.jobs),
                    "locore.batch.tokens": batch.cost.padded_tokens,
                }
                spans.begin(at, attributes)

    def _refuse_late(self, left: float, wait: float, own: float, trust: float) -> None:
        """`left`: seconds until the deadline, of which the wait may fill the share `trust`."""
        if own > left:
            alone = f"; alone the list takes {own:.2f} seconds" if left > 0 else ""
            raise DeadlineExceededError(f"timeout_ms leaves {max(left, 0.0):.2f} seconds{alone}")
        too_long = wait - trust * (left - own)
        if too_long > 0:
            self._refuse("too_late", "the wait would be too long for timeout_ms", too_long)

    def _refuse(self, reason: str, message: str, seconds: float) -> NoReturn:
        REJECTED.labels(reason).inc()
        wait = min(math.ceil(seconds), _LONGEST_RETRY_AFTER)
        raise OverloadedError(message, retry_after=max(1, wait))

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = UnavailableError("the service is shutting down", code="shutting_down")
        if not task.cancelled() and task.exception() is not None:
            log.error("batcher_died", exc_info=task.exception())
            error = UnavailableError("the batcher is not running")
        for job in self._answers:
            self._fail(job, error)
