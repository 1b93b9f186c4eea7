"""Does work once for all callers that request it at the same time."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

_Result = TypeVar("_Result")


class SharedWork(Generic[_Result]):
    """Runs `work` by key, at most once at a time for each key. A caller never gets the result of
    work that began before its call, since the data may have changed."""

    def __init__(self, work: Callable[[str], Awaitable[_Result]]) -> None:
        self._work = work
        self._running: dict[str, asyncio.Task[_Result]] = {}
        self._next: dict[str, asyncio.Task[_Result]] = {}

    async def result(self, key: str) -> _Result:
        """Raises what `work` raises. Cancelling one caller does not cancel the others."""
        task = self._next.get(key)
        if task is None:
            task = self._next[key] = asyncio.create_task(
                self._run(key),
                # The work belongs to no single request, neither in the log nor in the spans.
                context=contextvars.Context(),
            )
            # An error that no caller waits for any more is not a defect.
            task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        return await asyncio.shield(task)

    async def _run(self, key: str) -> _Result:
        previous = self._running.get(key)
        if previous is not None:
            await asyncio.wait((previous,))
        self._running[key] = self._next.pop(key)
        try:
            return await self._work(key)
        finally:
            del self._running[key]
