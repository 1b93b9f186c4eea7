"""Many lists without a service: their windows share forward passes as those of requests do.

Who shares a pass is decided by the service's own queue. No I/O, no clock, no thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from model.batch import Window
from service.batching.job import Job
from service.batching.window_queue import WindowQueue

_Tag = TypeVar("_Tag")
Score = Callable[[Sequence[Window]], Sequence[NDArray[np.float32]]]


@dataclass(frozen=True, eq=False)
class OfflineList(Generic[_Tag]):
    """`tag` says whose list it is; `job`, which has begun, is None where there is nothing to
    score."""

    tag: _Tag
    job: Job | None


def rerank_in_batches(
    lists: Iterable[OfflineList[_Tag]], score: Score, queue: WindowQueue, most_lists: int
) -> Iterator[OfflineList[_Tag]]:
    """The lists with their jobs finished, in the order in which they came.

    At most `most_lists` are held, fewer where `queue` has no room, and one that waits for room.
    What is finished ahead of its turn waits; every list has its share of passes.
    """
    coming = iter(lists)
    held: deque[OfflineList[_Tag]] = deque()
    following = next(coming, None)
    while following is not None or held:
        while following is not None and len(held) < most_lists:
            if following.job is not None:
                if not queue.has_room(following.job):
                    break
                queue.admit(following.job)
                queue.add(following.job)
            held.append(following)
            following = next(coming, None)
        batch = queue.take()
        if batch.jobs:
            scores = score([job.window for job in batch.jobs])
            for job, logits in zip(batch.jobs, scores, strict=True):
                # A finished list keeps its room until its turn: its images are in memory still.
                queue.accept(job, logits)
        while held and (held[0].job is None or held[0].job.finished):
            done = held.popleft()
            if done.job is not None:
                queue.release(done.job)
            yield done
