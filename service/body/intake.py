"""Reads bodies within limits, and parses them one by one, all but small ones in threads."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from typing import NoReturn, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from service.api.errors import (
    ApiError,
    ClientDisconnectedError,
    DeadlineExceededError,
    InvalidJsonError,
    MediaTypeError,
    OverloadedError,
    TooLargeError,
)
from service.watch.metrics import REJECTED

BODY_SECONDS = 60
JSON = "application/json"
_INLINE_BYTES = 1 << 16
"""Bodies up to this size take a few milliseconds at most, and usually less than one; a thread takes
a part of one to begin and to end."""
_SMALL_BYTES = 1 << 20
_GZIP = 31
"""zlib's name for it."""

_Result = TypeVar("_Result")


class Intake:
    """`max_bytes`: the limit for all bodies in memory, over all requests.

    Parsing holds the interpreter lock, so more threads would only delay the event loop. There are
    two, so that small bodies do not wait for large ones."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held = 0
        self._small = ThreadPoolExecutor(1, "small-bodies")
        self._large = ThreadPoolExecutor(1, "large-bodies")

    def hold(self, size: int) -> bool:
        """Counts bytes of a body as held until `release`. Returns whether there is room for
        them."""
        self._held += size
        return self._held <= self._max_bytes

    def release(self, size: int) -> None:
        self._held -= size

    @asynccontextmanager
    async def body(self, request: Request, limit: int) -> AsyncIterator[bytes]:
        """The body as received. It counts as held until the block ends.

        Raises TooLargeError as soon as it is too large, OverloadedError if too much is held
        already, DeadlineExceededError or ClientDisconnectedError if it does not arrive
        completely."""
        chunks: list[bytes] = []
        try:
            async with asyncio.timeout(BODY_SECONDS):
                await self._receive(request, limit, chunks)
        except BaseException as error:
            self.release(sum(map(len, chunks)))
            if isinstance(error, TimeoutError):
                message = f"the body took over {BODY_SECONDS} seconds"
                raise DeadlineExceededError(message) from None
            if isinstance(error, ClientDisconnect):
                raise ClientDisconnectedError("the client has gone") from None
            raise
        data = b"".join(chunks)
        chunks.clear()
        try:
            yield data
        finally:
            self.release(len(data))

    async def _receive(self, request: Request, limit: int, chunks: list[bytes]) -> None:
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > limit:
            _refuse_as_too_large(limit)
        size = 0
        async for chunk in request.stream():
            chunks.append(chunk)
            size += len(chunk)
            has_room = self.hold(len(chunk))
            if size > limit:
                _refuse_as_too_large(limit)
            if not has_room:
                REJECTED.labels("bodies").inc()
                raise OverloadedError("too many large bodies at a time", retry_after=1)

    async def json(
        self,
        request: Request,
        limit: int,
        parse: Callable[[bytes], _Result],
        around: Callable[[bytes], AbstractContextManager[None]],
    ) -> _Result:
        """The result of `parse`, which for a large body can take many milliseconds. `around`: a
        context manager for the body as received, around the parsing.

        Raises MediaTypeError for a body that is not JSON, and what `body` and `parse` raise."""
        kind = content_type(request)
        if kind != JSON:
            raise MediaTypeError(f"Content-Type: {kind[:100]}, but {JSON} is required")
        return await self.parsed(request, limit, parse, around)

    async def parsed(
        self,
        request: Request,
        limit: int,
        parse: Callable[[bytes], _Result],
        around: Callable[[bytes], AbstractContextManager[None]] = lambda _: nullcontext(),
    ) -> _Result:
        """Like `json`, for a body of any type."""
        encoded = _is_gzip(request)
        async with self.body(request, limit) as body:
            # The size of a compressed body is unknown.
            lane = self._large if encoded or len(body) > _SMALL_BYTES else self._small

            def work() -> _Result | ApiError:
                try:
                    return parse(_unzipped(body, limit) if encoded else body)
                except ApiError as error:
                    return error

            with around(body):
                if len(body) <= _INLINE_BYTES and not encoded:
                    result = work()
                else:
                    result = await asyncio.get_running_loop().run_in_executor(lane, work)
        if isinstance(result, ApiError):
            raise result
        return result

    def close(self) -> None:
        for lane in (self._small, self._large):
            lane.shutdown(wait=False, cancel_futures=True)


def content_type(request: Request) -> str:
    """Lower-case, without parameters. A missing header counts as JSON: pages of other sites cannot
    send JSON without a preflight request, nor leave the header out without an Origin, which is
    checked as well."""
    return request.headers.get("content-type", JSON).partition(";")[0].strip().lower()


def _is_gzip(request: Request) -> bool:
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("gzip", "x-gzip"):
        return True
    if encoding in ("identity", ""):
        return False
    message = f"Content-Encoding: {encoding[:100]}, but gzip or none is required"
    raise MediaTypeError(message, headers={"Accept-Encoding": "gzip, identity"})


def _unzipped(body: bytes, limit: int) -> bytes:
    """Raises TooLargeError as soon as the body is too large, and InvalidJsonError."""
    unzip = zlib.decompressobj(_GZIP)
    try:
        data = unzip.decompress(body, limit + 1)
    except zlib.error:
        raise InvalidJsonError("the body is not gzip, as its Content-Encoding says") from None
    if len(data) > limit:
        _refuse_as_too_large(limit)
    if not unzip.eof or unzip.unused_data:
        raise InvalidJsonError("the body is not one complete gzip")
    return data


def _refuse_as_too_large(limit: int) -> NoReturn:
    REJECTED.labels("too_large").inc()
    raise TooLargeError(f"the body is larger than {limit} bytes", max_payload_bytes=limit)
