"""One re-rank request between admission and answer: no I/O, no clock."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model.batch import Window
from model.descriptors import ImageDescriptors
from model.windows import Reranking, RerankOptions, plan_windows


class Job:
    """A list that is re-ranked window by window, with the images that its places stand for."""

    def __init__(
        self,
        query: ImageDescriptors,
        gallery: Sequence[ImageDescriptors],
        first_stage: NDArray[np.float32] | None,
        options: RerankOptions,
    ) -> None:
        self._query = query
        self._gallery = gallery
        self._reranking = Reranking(len(gallery), first_stage, options)

    @property
    def finished(self) -> bool:
        return not self._reranking.windows_left

    def next_window(self) -> Window:
        """Raises ValueError when all is done."""
        images = self._reranking.next_window()
        if images is None:
            raise ValueError("a finished job has no windows")
        return Window(self._query, [self._gallery[i] for i in images])

    def accept(self, logits: NDArray[np.float32]) -> None:
        """The scores of `next_window()`."""
        self._reranking.accept(logits)

    def result(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """(order, relevance), see `model.windows.Reranking.result`."""
        return self._reranking.result()


def most_tokens(images: int, options: RerankOptions, tokens_per_image: int) -> int:
    """An upper bound of what a list will take, known before any of it is fetched."""
    windows = len(plan_windows(images, options.window, options.stride, options.direction))
    return windows * (1 + min(images, options.window)) * tokens_per_image
