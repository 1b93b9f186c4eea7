"""One re-rank request from its admission to its answer: no I/O, no clock."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model.config import ModelConfig
from model.cost import WindowCost
from model.descriptors import ImageDescriptors
from model.windows import Reranking, RerankOptions, Window


class Job:
    """A list that is re-ranked window by window. Its cost is an upper bound by its length at first,
    and exact once its images are there (`begin`).

    `deadline`: seconds of the caller's clock. `held_tokens`: an upper bound of the tokens that its
    images take in memory. `cost`: of its next window. `windows`, `tokens`: scored so far;
    `seconds`: of its passes.
    """

    def __init__(
        self, config: ModelConfig, images: int, options: RerankOptions, deadline: float = math.inf
    ) -> None:
        self.deadline = deadline
        self._config = config
        self._options = options
        self._reranking: Reranking | None = None
        self._window: Window | None = None
        self._query: ImageDescriptors
        self._gallery: Sequence[ImageDescriptors]
        self.windows_left = len(options.plan(images))
        most = config.descriptors_per_image
        counts = [most] * (1 + min(images, options.window))
        self.held_tokens = (1 + images) * (most + config.extra_tokens)
        self.cost: WindowCost = config.window_cost(counts)
        self.windows = 0
        self.tokens = 0
        self.seconds = 0.0

    def begin(
        self,
        query: ImageDescriptors,
        gallery: Sequence[ImageDescriptors],
        first_stage: NDArray[np.float32] | None,
    ) -> None:
        """Takes the images, at most as many as the job was made for."""
        self._query, self._gallery = query, gallery
        self._reranking = Reranking(len(gallery), first_stage, self._options)
        self._measure(self._reranking)

    @property
    def window(self) -> Window:
        """The next window to score. Raises ValueError before `begin` and after the last one."""
        if self._window is None:
            raise ValueError("there is no window to be scored")
        return self._window

    @property
    def finished(self) -> bool:
        return self._reranking is not None and not self.windows_left

    def accept(self, logits: NDArray[np.float32]) -> None:
        """Takes the logits of `window`, one for each of its gallery images."""
        if self._reranking is None:
            raise ValueError("the job has not begun")
        self._reranking.accept(logits)
        self.windows += 1
        self.tokens += self.cost.tokens
        self._measure(self._reranking)

    def result(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """(order, relevance), see `model.windows.Reranking.result`."""
        if self._reranking is None:
            raise ValueError("the job has not begun")
        return self._reranking.result()

    def _measure(self, reranking: Reranking) -> None:
        self.windows_left = reranking.windows_left
        images = reranking.next_window()
        self._window = None
        if images is not None:
            self._window = Window(self._query, [self._gallery[i] for i in images])
            most = self._config.descriptors_per_image
            self.cost = self._config.window_cost(
                [min(i.count, most) for i in (self._query, *self._window.gallery)]
            )
