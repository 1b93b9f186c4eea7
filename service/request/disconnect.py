"""Cancels the work for a client that has disconnected."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request

from service.api.errors import ClientDisconnectedError

_Answer = TypeVar("_Answer")


async def unless_disconnected(request: Request, work: Coroutine[Any, Any, _Answer]) -> _Answer:
    """The result of `work`, which is cancelled if the client disconnects. The body must have been
    read. Raises ClientDisconnectedError, and what `work` raises.
    """
    working = asyncio.ensure_future(work)
    disconnect = asyncio.ensure_future(_disconnected(request))
    # An error after the client has gone has no reader, and is not a defect.
    working.add_done_callback(_heard)
    try:
        await asyncio.wait((working, disconnect), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientDisconnectedError("the client has gone")
    finally:
        disconnect.cancel()
        if working.cancel():
            # It must leave its place in the queue before we return.
            await asyncio.wait((working,))


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _heard(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()
