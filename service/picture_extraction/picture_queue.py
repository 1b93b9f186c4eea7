"""The queue of pictures: bounded, and fair among requests."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NoReturn, TypeVar

from model.config import ExtractorId
from service.api.errors import ApiError, NoExtractorError, OverloadedError, UnavailableError
from service.picture_extraction.extractor_process import ExtractorProcess
from service.picture_extraction.messages import ExtractedPicture
from service.watch.metrics import (
    EXTRACTION_PICTURES,
    EXTRACTION_QUEUE,
    EXTRACTION_REJECTED,
    EXTRACTION_SECONDS,
)

_LONGEST_RETRY_AFTER = 60
_MEMORY = 0.2
"""Weight of the last picture's time in the estimate for the next one."""

_Result = TypeVar("_Result")


class ExtractionQueue:
    """A request holds a place while it has pictures, and has one of them in the queue at a time. So
    a query waits for one picture of each other request, however many pictures they have."""

    def __init__(
        self,
        process: ExtractorProcess,
        *,
        max_requests: int,
        max_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`max_bytes`: of the pictures of all requests with a place; `clock`: the clock of the
        deadlines."""
        self._process = process
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self._clock = clock
        # The thread only waits for the process, which does the work. First in, first out.
        self._thread = ThreadPoolExecutor(1, "extraction")
        self._requests = 0
        self._bytes = 0
        self._usual = 0.0
        self._closed = False

    @property
    def extractor(self) -> ExtractorId | None:
        """None until it is known."""
        return self._process.extractor

    async def problem(self) -> str | None:
        """Why pictures cannot be extracted here, None if they can."""
        try:
            await self._in_turn(self._process.start)
        except NoExtractorError as error:
            return str(error)
        return None

    @contextmanager
    def place(self, size: int, deadline: float | None = None) -> Iterator[None]:
        """A place for a request whose pictures have `size` bytes. Raises OverloadedError if there
        is none, or if the wait would exceed the deadline."""
        wait = self._usual * (self._requests + 1)
        if self._requests >= self._max_requests:
            _refuse("queue_full", "too many pictures wait to be extracted", wait)
        if self._bytes + size > self._max_bytes:
            _refuse("bytes", "too many bytes of pictures wait to be extracted", wait)
        if deadline is not None and self._requests and wait > deadline - self._clock():
            _refuse("too_late", "the wait for other pictures would be longer than timeout_ms", wait)
        self._hold(1, size)
        try:
            yield
        finally:
            self._hold(-1, -size)

    async def extract(self, picture: bytes, *, thumbnail: bool = False) -> ExtractedPicture:
        """Extracts a picture of a request with a place. If it is cancelled before its turn, it is
        not read.

        Raises NoExtractorError, UnprocessableError, TooLargeError and UnavailableError."""
        return await self._in_turn(lambda: self._timed(picture, thumbnail))

    def close(self) -> None:
        """Requests that still wait get the error `shutting_down`."""
        self._closed = True
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._process.close()

    async def _in_turn(self, work: Callable[[], _Result]) -> _Result:
        if self._closed:
            raise _shutting_down()
        turn = asyncio.get_running_loop().run_in_executor(self._thread, work)
        try:
            return await turn
        except asyncio.CancelledError:
            if self._closed and turn.cancelled():
                raise _shutting_down() from None
            raise

    def _timed(self, picture: bytes, thumbnail: bool) -> ExtractedPicture:
        self._process.start()
        started = time.perf_counter()
        try:
            extraction = self._process.extract(picture, thumbnail=thumbnail)
        except ApiError as error:
            result = "refused" if error.status in (413, 422) else "failed"
            EXTRACTION_PICTURES.labels(result).inc()
            raise
        seconds = time.perf_counter() - started
        self._usual += (_MEMORY if self._usual else 1.0) * (seconds - self._usual)
        EXTRACTION_PICTURES.labels("described").inc()
        EXTRACTION_SECONDS.observe(seconds)
        return extraction

    def _hold(self, requests: int, size: int) -> None:
        self._requests += requests
        self._bytes += size
        EXTRACTION_QUEUE.set(self._requests)


def _refuse(reason: str, message: str, seconds: float) -> NoReturn:
    EXTRACTION_REJECTED.labels(reason).inc()
    wait = max(1, min(math.ceil(seconds), _LONGEST_RETRY_AFTER))
    raise OverloadedError(message, retry_after=wait)


def _shutting_down() -> UnavailableError:
    return UnavailableError("the service is shutting down", code="shutting_down")
