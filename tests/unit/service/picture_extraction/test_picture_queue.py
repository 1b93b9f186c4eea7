"""The queue of pictures: bounds, turns, and what nobody waits for any more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from service.api.errors import OverloadedError, UnavailableError
from service.picture_extraction.extractor_process import ExtractorProcess
from service.picture_extraction.picture_queue import ExtractionQueue
from service.watch.metrics import EXTRACTION_PICTURES, EXTRACTION_QUEUE, EXTRACTION_REJECTED
from tests.loops import in_a_loop
from tests.pictures import EXTRACTOR, photograph

PICTURE = photograph("rocket", 64)


@pytest.fixture(scope="module")
def process() -> Iterator[ExtractorProcess]:
    process = ExtractorProcess(EXTRACTOR, None, 4)
    yield process
    process.close()


@pytest.fixture
def queue(process: ExtractorProcess) -> ExtractionQueue:
    return ExtractionQueue(process, max_requests=3, max_bytes=1000)


def described() -> float:
    value: float = EXTRACTION_PICTURES.labels("described")._value.get()
    return value


def rejected(reason: str) -> float:
    value: float = EXTRACTION_REJECTED.labels(reason)._value.get()
    return value


def test_places_and_bytes_are_bounded(queue: ExtractionQueue) -> None:
    before = rejected("queue_full"), rejected("bytes")
    with ExitStack() as held:
        for _ in range(3):
            held.enter_context(queue.place(100))
        assert EXTRACTION_QUEUE._value.get() == 3
        with pytest.raises(OverloadedError) as refusal, queue.place(1):
            pass
        assert refusal.value.retry_after == 1
    with queue.place(600), pytest.raises(OverloadedError, match="bytes"), queue.place(401):
        pass
    with queue.place(1000):
        pass
    assert EXTRACTION_QUEUE._value.get() == 0
    assert (rejected("queue_full"), rejected("bytes")) == (before[0] + 1, before[1] + 1)


@in_a_loop
async def test_requests_take_turns(queue: ExtractionQueue) -> None:
    """One of many pictures does not hold up one that comes after it."""
    order: list[str] = []

    async def ask(name: str, pictures: int) -> None:
        with queue.place(10):
            for _ in range(pictures):
                await queue.extract(PICTURE)
                order.append(name)

    await asyncio.gather(ask("many", 6), ask("one", 1), ask("two", 2))
    assert order[:4] in (["many", "one", "two", "many"], ["many", "one", "two", "two"])
    assert len(order) == 9


@in_a_loop
async def test_what_nobody_waits_for_is_not_extracted(queue: ExtractionQueue) -> None:
    before = described()
    waiting = [asyncio.ensure_future(queue.extract(PICTURE)) for _ in range(5)]
    await asyncio.sleep(0)
    for task in waiting[1:4]:
        task.cancel()
    await asyncio.gather(waiting[0], waiting[4])
    assert all(task.cancelled() for task in waiting[1:4])
    assert described() == before + 2


@in_a_loop
async def test_a_wait_past_the_deadline_is_not_begun(queue: ExtractionQueue) -> None:
    with queue.place(10):
        # Nobody knows yet how long it would be.
        with queue.place(10, time.monotonic() + 0.001):
            pass
        await queue.extract(PICTURE)
        before = rejected("too_late")
        soon = time.monotonic() + 0.001
        with pytest.raises(OverloadedError, match="timeout_ms"), queue.place(10, soon):
            pass
        with queue.place(10, time.monotonic() + 60):
            pass
    assert rejected("too_late") == before + 1


@in_a_loop
async def test_whoever_waits_as_the_service_ends_is_told_so() -> None:
    queue = ExtractionQueue(ExtractorProcess(EXTRACTOR, None, 4), max_requests=3, max_bytes=1000)
    waiting = [asyncio.ensure_future(queue.extract(PICTURE)) for _ in range(3)]
    await asyncio.sleep(0.2)
    queue.close()
    for task in waiting:
        with pytest.raises(UnavailableError, match="shutting down"):
            await task
    with pytest.raises(UnavailableError, match="shutting down"):
        await queue.extract(PICTURE)


@in_a_loop
async def test_why_pictures_cannot_be_extracted(queue: ExtractionQueue) -> None:
    assert await queue.problem() is None
    assert queue.extractor is not None
    none = ExtractionQueue(ExtractorProcess(None, None, 4), max_requests=1, max_bytes=1)
    assert "LOCORE_EXTRACTOR is none" in str(await none.problem())
    assert none.extractor is None
