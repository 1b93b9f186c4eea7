"""One way to call both clients, so that a test says everything once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from locore_client import AsyncClient, Client

_LISTS = ("ids", "collections", "aliases")


class Blocking:
    """`Blocking(url, …).method(…)`: a Client, its method, and its end."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._made = arguments, options

    def __getattr__(self, method: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            with Client(*self._made[0], **self._made[1]) as client:
                result = getattr(client, method)(*arguments, **options)
                return list(result) if method in _LISTS else result

        return call


class Asynchronous(Blocking):
    """The same with an AsyncClient, in an event loop of its own."""

    def __getattr__(self, method: str) -> Any:
        async def work(*arguments: Any, **options: Any) -> Any:
            async with AsyncClient(*self._made[0], **self._made[1]) as client:
                result = getattr(client, method)(*arguments, **options)
                if method in _LISTS:
                    return [item async for item in result]
                return await result

        return lambda *arguments, **options: asyncio.run(work(*arguments, **options))


both = pytest.mark.parametrize("kind", [Blocking, Asynchronous])
