"""The one thread that owns the model and the device."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from model.batch import Window
from model.checkpoint import LoadedModel
from model.reranker import random_window, score_windows

STUCK_SECONDS = 120.0
"""A forward pass that takes longer than this will not come back."""


class Worker:
    """Scores windows, one batch at a time, off the event loop."""

    def __init__(self, model: LoadedModel) -> None:
        self._model = model
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="locore-worker")
        self._busy_since: float | None = None
        self.warm = False
        self.problem: str | None = None

    async def warm_up(self) -> None:
        """A first pass of the usual size, so that no request pays for what happens only once."""
        config = self._model.config
        images = config.rerank.window if config.listwise else 1
        await self.score([random_window(config, images)])
        self.warm = True

    async def score(self, windows: Sequence[Window]) -> list[NDArray[np.float32]]:
        """The logits of each window's gallery images. Raises what the model raises."""
        loop = asyncio.get_running_loop()
        scores = await loop.run_in_executor(self._thread, self._score, windows)
        self.problem = None
        return scores

    async def check(self) -> None:
        """After a failure: can the device still compute? `problem` says so if it cannot."""
        try:
            await self.score([random_window(self._model.config, images=1)])
        # Whatever a broken device raises, it is the health check's to report.
        except Exception as error:  # noqa: BLE001
            self.problem = f"the model fails: {type(error).__name__}"

    @property
    def stuck(self) -> bool:
        busy_since = self._busy_since
        return busy_since is not None and time.monotonic() - busy_since > STUCK_SECONDS

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _score(self, windows: Sequence[Window]) -> list[NDArray[np.float32]]:
        self._busy_since = time.monotonic()
        try:
            scores = score_windows(self._model.reranker, windows, self._model.device)
        finally:
            self._busy_since = None
        if not all(np.isfinite(logits).all() for logits in scores):
            raise FloatingPointError("a logit is not finite")
        return scores
