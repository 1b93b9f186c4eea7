"""The queue of windows: one owner of who waits, who is admitted, and who shares a forward pass.

Pure: no I/O, no clock, no thread. A list is one unit, admitted whole or refused whole, and its
windows become ready one after another, each re-ordering what the next one is cut from.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from model.batch import Window
from service.batching.job import Job

LEAST_FILLED = 0.7
"""A window joins a batch only while at least this share of the batch is not padding."""


@dataclass(eq=False)
class Ticket:
    """A place in the queue, held from admission until the request has ended, however it ends."""

    tokens: int
    arrival: int
    job: Job | None = field(default=None, repr=False)


@dataclass(frozen=True, eq=False)
class ReadyWindow:
    """`slots`: tokens of its longest image; `images`: with the query; `tokens`: real ones."""

    ticket: Ticket
    window: Window
    images: int
    slots: int
    tokens: int


class WindowQueue:
    """`tokens_per_image` is what an image takes beside its locals plus its most locals."""

    def __init__(
        self,
        *,
        max_batch_tokens: int,
        max_queue_tokens: int,
        descriptors_per_image: int,
        extra_tokens: int,
    ) -> None:
        self._max_batch_tokens = max_batch_tokens
        self._max_queue_tokens = max_queue_tokens
        self._descriptors_per_image = descriptors_per_image
        self._extra_tokens = extra_tokens
        self._arrivals = 0
        self._held: dict[Ticket, None] = {}
        self._ready: dict[Ticket, ReadyWindow] = {}
        self.tokens = 0

    @property
    def full(self) -> bool:
        return self.tokens >= self._max_queue_tokens

    def admit(self, tokens: int) -> Ticket | None:
        """None where the queue has no room. A list larger than all the room there is gets in
        when it finds the queue empty: it could never be served otherwise."""
        if self.tokens and self.tokens + tokens > self._max_queue_tokens:
            return None
        self._arrivals += 1
        ticket = Ticket(tokens, self._arrivals)
        self._held[ticket] = None
        self.tokens += tokens
        return ticket

    def add(self, ticket: Ticket, job: Job) -> None:
        """The admitted request is ready to be scored."""
        if ticket not in self._held or ticket.job is not None:
            raise ValueError("a ticket is for one job, while it is held")
        ticket.job = job
        self._ready[ticket] = self._measured(ticket, job)

    def release(self, ticket: Ticket) -> None:
        """The request has ended: its window is dropped if it still waits. Any number of times."""
        if ticket in self._held:
            del self._held[ticket]
            self._ready.pop(ticket, None)
            self.tokens -= ticket.tokens

    def take(self) -> list[ReadyWindow]:
        """The next batch: the oldest ready window, and the oldest others of like length, up to
        the token budget. Empty where nothing is ready."""
        waiting = sorted(self._ready.values(), key=lambda ready: ready.ticket.arrival)
        batch: list[ReadyWindow] = []
        for ready in waiting:
            joined = [*batch, ready]
            padded = padded_tokens(joined)
            filled = sum(window.tokens for window in joined) / padded
            if not batch or (padded <= self._max_batch_tokens and filled >= LEAST_FILLED):
                batch = joined
        for ready in batch:
            del self._ready[ready.ticket]
        return batch

    def accept(self, ticket: Ticket, logits: NDArray[np.float32]) -> Job | None:
        """Scores of the ticket's window; the job, where this was its last one. A request that
        ended in the meantime is ignored."""
        if ticket not in self._held or ticket.job is None:
            return None
        ticket.job.accept(logits)
        if ticket.job.finished:
            return ticket.job
        self._ready[ticket] = self._measured(ticket, ticket.job)
        return None

    def _measured(self, ticket: Ticket, job: Job) -> ReadyWindow:
        window = job.next_window()
        slots = [
            min(image.count, self._descriptors_per_image) + self._extra_tokens
            for image in (window.query, *window.gallery)
        ]
        return ReadyWindow(ticket, window, len(slots), max(slots), sum(slots))


def padded_tokens(batch: list[ReadyWindow]) -> int:
    """What a batch takes on the device: every image as long as the longest."""
    return len(batch) * max(w.images for w in batch) * max(w.slots for w in batch)
