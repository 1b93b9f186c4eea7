"""The threads that have the model score windows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model.model_info import ModelInfo
from model.random_images import random_window
from model.windows import Window
from service.batching.speed import Speed

STUCK_SECONDS = 120.0
"""A forward pass that takes longer than this will not come back."""

_MEASURE_SECONDS = 0.25


class Scorer(Protocol):
    """A model, in this process or in its own. `passes_at_once`: how many calls of `score`, each
    from a thread of its own, it takes at a time; it computes one after another."""

    @property
    def passes_at_once(self) -> int: ...

    @property
    def info(self) -> ModelInfo: ...

    def score(self, windows: Sequence[Window]) -> list[NDArray[np.float32]]:
        """The logits of each window's gallery images, all windows in one forward pass."""
        ...


class Worker:
    """Scores batches of windows off the event loop, in the order in which they come."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self._config = scorer.info.config
        self._threads = ThreadPoolExecutor(
            scorer.passes_at_once, thread_name_prefix="locore-worker"
        )
        self._running = 0
        self._last_ended = asyncio.Event()
        self._last_ended.set()
        self._busy_since: float | None = None
        self.warm = False
        self.problem: str | None = None

    async def warm_up(self) -> Speed:
        """Runs first passes, so that no request pays for one-time work, and measures the device
        while nothing else uses it."""
        await self.score([random_window(self._config, images=1)])
        loop = asyncio.get_running_loop()
        speed = await loop.run_in_executor(self._threads, measured_speed, self._scorer)
        self.warm = True
        return speed

    async def score(self, windows: Sequence[Window]) -> list[NDArray[np.float32]]:
        """The logits of each window's gallery images. Raises what the model raises."""
        loop = asyncio.get_running_loop()
        before, ended = self._last_ended, asyncio.Event()
        self._last_ended = ended
        self._running += 1
        if self._busy_since is None:
            self._busy_since = time.monotonic()
        try:
            scores = await loop.run_in_executor(self._threads, self._score, windows)
        finally:
            # The threads' answers may overtake each other on their way to the event loop.
            await before.wait()
            ended.set()
            self._running -= 1
            self._busy_since = time.monotonic() if self._running else None
        self.problem = None
        return scores

    @property
    def passes_at_once(self) -> int:
        return self._scorer.passes_at_once

    async def check(self) -> None:
        """After a failure: sets `problem` if the device cannot compute any more."""
        try:
            await self.score([random_window(self._config, images=1)])
        # Whatever a broken device raises, the health check reports it.
        except Exception as error:  # noqa: BLE001
            self.problem = f"the model fails: {type(error).__name__}"

    @property
    def stuck(self) -> bool:
        busy_since = self._busy_since
        return busy_since is not None and time.monotonic() - busy_since > STUCK_SECONDS

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _score(self, windows: Sequence[Window]) -> list[NDArray[np.float32]]:
        scores = self._scorer.score(windows)
        if not all(np.isfinite(logits).all() for logits in scores):
            raise FloatingPointError("a logit is not finite")
        return scores


def measured_speed(scorer: Scorer) -> Speed:
    """Measured by passes of small windows and of one of the usual size."""
    config = scorer.info.config
    small = random_window(config, 1)
    large = random_window(config, config.rerank.window if config.listwise else 8)

    def quickest(windows: Sequence[Window]) -> float:
        """Seconds of the quickest of a few passes, fewer where they take long."""
        spent: list[float] = []
        while len(spent) < 2 or (len(spent) < 5 and sum(spent) < _MEASURE_SECONDS):
            started = time.perf_counter()
            scorer.score(windows)
            spent.append(time.perf_counter() - started)
        return min(spent)

    # The large one first: it pays for one-time work.
    whole = quickest([large])
    small_cost, large_cost = (
        config.window_cost([image.count for image in (window.query, *window.gallery)])
        for window in (small, large)
    )
    one, eight = quickest([small]), quickest([small] * 8)
    return Speed.from_passes(small_cost, one, eight, large_cost, whole)
