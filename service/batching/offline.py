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
from service.batching.queue import Ticket, WindowQueue

_Tag = TypeVar("_Tag")
Score = Callable[[Sequence[Window]], Sequence[NDArray[np.float32]]]


@dataclass(frozen=True, eq=False)
class OfflineList(Generic[_Tag]):
    """`tag` says whose list it is; `job` is None where there is nothing to score; `tokens`: what
    it counts for while lists are held: an upper bound of one of its windows."""

    tag: _Tag
    job: Job | None
    tokens: int


def rerank_in_batches(
    lists: Iterable[OfflineList[_Tag]], score: Score, queue: WindowQueue
) -> Iterator[OfflineList[_Tag]]:
    """The lists with their jobs finished, in the order in which they came.

    As many lists are held as `queue` has room for, and one that waits for room. What is finished
    ahead of its turn waits; the oldest list is in every pass, so its turn is soon.
    """
    coming = iter(lists)
    held: deque[tuple[OfflineList[_Tag], Ticket]] = deque()
    following = next(coming, None)
    while following is not None or held:
        while following is not None:
            ticket = queue.admit(following.tokens)
            if ticket is None:
                break
            if following.job is not None:
                queue.add(ticket, following.job)
            held.append((following, ticket))
            following = next(coming, None)
        batch = queue.take()
        if batch:
            scores = score([ready.window for ready in batch])
            for ready, logits in zip(batch, scores, strict=True):
                # A finished list keeps its room until its turn: its images are in memory still.
                queue.accept(ready.ticket, logits)
        while held and (held[0][0].job is None or held[0][0].job.finished):
            done, ticket = held.popleft()
            queue.release(ticket)
            yield done
