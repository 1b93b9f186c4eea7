"""Re-ranks many lists without a service. Their windows share forward passes, like those of
requests.

The service's own queue decides which windows share a pass. No I/O, no clock, no thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from model.windows import Window
from service.batching.job import Job
from service.batching.window_queue import WindowQueue

_Tag = TypeVar("_Tag")
Score = Callable[[Sequence[Window]], Sequence[NDArray[np.float32]]]


def rerank_in_batches(
    lists: Iterable[tuple[_Tag, Job | None]], score: Score, queue: WindowQueue, max_lists: int
) -> Iterator[tuple[_Tag, Job | None]]:
    """Yields the lists in their order, with their jobs finished. A list is a tag of the caller and
    a job that has begun, None if there is nothing to score. Holds at most `max_lists` lists, fewer
    if `queue` has no room, and one that waits for room. A list that finishes early waits for its
    turn; every list has its share of passes.
    """
    source = iter(lists)
    pending: deque[tuple[_Tag, Job | None]] = deque()
    following = next(source, None)
    while following is not None or pending:
        while following is not None and len(pending) < max_lists:
            _, job = following
            if job is not None:
                if not queue.has_room(job):
                    break
                queue.admit(job)
                queue.add(job)
            pending.append(following)
            following = next(source, None)
        batch = queue.take()
        if batch.jobs:
            scores = score([job.window for job in batch.jobs])
            for job, logits in zip(batch.jobs, scores, strict=True):
                # A finished list holds its room until its turn: its images are still in memory.
                queue.accept(job, logits)
        while pending and ((first := pending[0][1]) is None or first.finished):
            if first is not None:
                queue.release(first)
            yield pending.popleft()
