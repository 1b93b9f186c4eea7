"""From the queue to the worker and back to the requests."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import structlog
from numpy.typing import NDArray
from opentelemetry.trace import Tracer

from service.batching.job import Job
from service.batching.queue import ReadyWindow, Ticket, WindowQueue, padded_tokens
from service.batching.worker import Worker
from service.errors import ApiError, OverloadedError, UnavailableError
from service.metrics import (
    BATCH_PADDING,
    BATCH_TOKENS,
    BATCH_WINDOWS,
    QUEUE_TOKENS,
    REJECTED,
)
from service.tracing import NOT_TRACED, WindowSpans, window_spans

log = structlog.get_logger(__name__)

_LONGEST_RETRY_AFTER = 60


@dataclass
class _Waiting:
    """A request that awaits its scores, and how long its windows were computed so far."""

    answer: asyncio.Future[None]
    spans: WindowSpans | None
    inference_seconds: float = 0.0
    windows: int = 0
    tokens: int = 0


@dataclass(frozen=True, eq=False)
class Outcome:
    """`order` and `relevance` as in `model.windows.Reranking.result`; `tokens` were scored."""

    order: NDArray[np.int64]
    relevance: NDArray[np.float64]
    windows: int
    tokens: int
    queue_seconds: float
    inference_seconds: float


class Batcher:
    """Runs batch after batch. It waits for no timer: while the device computes one batch, the
    next one gathers. Every request that enters `score` leaves it: by its result, by an error, or
    because its caller was cancelled (a deadline, a disconnect)."""

    def __init__(
        self,
        queue: WindowQueue,
        worker: Worker,
        tracer: Tracer = NOT_TRACED,
        recheck_seconds: float = 2.0,
    ) -> None:
        """`recheck_seconds`: how often a device that failed is tried again."""
        self._queue = queue
        self._worker = worker
        self._tracer = tracer
        self._recheck_seconds = recheck_seconds
        self._waiting: dict[Ticket, _Waiting] = {}
        self._work = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._tokens_per_second = 0.0

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(self._ended)

    async def close(self) -> None:
        """Whoever still waits is told that the service is shutting down."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    @property
    def problem(self) -> str | None:
        """Why no request can be scored, if so."""
        if self._task is None or self._task.done():
            return "the batcher is not running"
        if self._worker.stuck:
            return "the worker is stuck"
        return self._worker.problem

    def refuse_when_full(self) -> None:
        """Raises OverloadedError; for a look before any work is done."""
        if self._queue.full:
            self._overloaded()

    @contextmanager
    def admit(self, tokens: int) -> Iterator[Ticket]:
        """A place in the queue for as long as the block runs. Raises OverloadedError."""
        ticket = self._queue.admit(tokens)
        if ticket is None:
            self._overloaded()
        try:
            QUEUE_TOKENS.set(self._queue.tokens)
            yield ticket
        finally:
            self._queue.release(ticket)
            QUEUE_TOKENS.set(self._queue.tokens)

    async def score(self, ticket: Ticket, job: Job) -> Outcome:
        """Re-rank the whole list of an admitted job."""
        if self._task is None or self._task.done():
            raise UnavailableError("the service is shutting down", code="shutting_down")
        started = time.perf_counter()
        with window_spans(self._tracer) as spans:
            waiting = _Waiting(asyncio.get_running_loop().create_future(), spans)
            self._waiting[ticket] = waiting
            try:
                self._queue.add(ticket, job)
                self._work.set()
                await waiting.answer
            finally:
                del self._waiting[ticket]
        total = time.perf_counter() - started
        return Outcome(
            *job.result(),
            windows=waiting.windows,
            tokens=waiting.tokens,
            queue_seconds=max(0.0, total - waiting.inference_seconds),
            inference_seconds=waiting.inference_seconds,
        )

    async def _run(self) -> None:
        while True:
            batch = self._queue.take()
            if batch:
                await self._compute(batch)
            elif self._worker.problem is not None:
                # Nothing is admitted now, so no request will show that the device is back.
                await asyncio.sleep(self._recheck_seconds)
                await self._worker.check()
            else:
                self._work.clear()
                await self._work.wait()

    async def _compute(self, batch: list[ReadyWindow]) -> None:
        started = time.perf_counter()
        self._mark_begin(batch, started)
        try:
            scores = await self._worker.score([ready.window for ready in batch])
        # The worker's thread runs the model and CUDA: what fails there must not end the batcher.
        except Exception:
            log.exception("batch_failed", windows=len(batch))
            await self._worker.check()
            await self._after_failure(batch)
            return
        seconds = time.perf_counter() - started
        self._observe(batch, seconds)
        for ready, logits in zip(batch, scores, strict=True):
            self._deliver(ready, logits, started, seconds)

    async def _after_failure(self, batch: list[ReadyWindow]) -> None:
        """The windows again, each alone: one that cannot be scored must not take others along."""
        if len(batch) > 1 and self._worker.problem is None:
            for ready in batch:
                if ready.ticket in self._waiting:
                    await self._compute([ready])
            return
        for ready in batch:
            waiting = self._waiting.get(ready.ticket)
            if waiting is not None and not waiting.answer.done():
                waiting.answer.set_exception(ApiError("the list could not be scored"))

    def _deliver(
        self, ready: ReadyWindow, logits: NDArray[np.float32], started: float, seconds: float
    ) -> None:
        waiting = self._waiting.get(ready.ticket)
        if waiting is None or waiting.answer.done():
            return
        waiting.inference_seconds += seconds
        waiting.windows += 1
        waiting.tokens += ready.tokens
        if waiting.spans is not None:
            waiting.spans.end(started + seconds)
        if self._queue.accept(ready.ticket, logits) is not None:
            waiting.answer.set_result(None)

    def _mark_begin(self, batch: list[ReadyWindow], at: float) -> None:
        for ready in batch:
            waiting = self._waiting.get(ready.ticket)
            if waiting is not None and waiting.spans is not None:
                of_pass = {
                    "locore.images": ready.images - 1,
                    "locore.tokens": ready.tokens,
                    "locore.batch.windows": len(batch),
                    "locore.batch.tokens": padded_tokens(batch),
                }
                waiting.spans.begin(at, of_pass)

    def _observe(self, batch: list[ReadyWindow], seconds: float) -> None:
        padded = padded_tokens(batch)
        real = sum(ready.tokens for ready in batch)
        BATCH_WINDOWS.observe(len(batch))
        BATCH_TOKENS.observe(padded)
        BATCH_PADDING.observe(1 - real / padded)
        speed = real / max(seconds, 1e-9)
        self._tokens_per_second += 0.2 * (speed - self._tokens_per_second)

    def _overloaded(self) -> NoReturn:
        REJECTED.labels("queue_full").inc()
        wait = _LONGEST_RETRY_AFTER
        if self._tokens_per_second:
            wait = math.ceil(self._queue.tokens / self._tokens_per_second)
        raise OverloadedError(
            "the queue is full", retry_after=max(1, min(wait, _LONGEST_RETRY_AFTER))
        )

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            log.error("batcher_died", exc_info=task.exception())
        for waiting in self._waiting.values():
            if not waiting.answer.done():
                waiting.answer.set_exception(
                    UnavailableError("the service is shutting down", code="shutting_down")
                )
