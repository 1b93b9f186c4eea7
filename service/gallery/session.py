"""The connection to a Redis or Valkey: retries, and its failures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

import redis.asyncio as redis
from redis import exceptions
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.sentinel import Sentinel

from service.gallery import commands
from service.gallery.commands import Command
from service.gallery.condition import AWAY, FAILURES, NO_REPLICAS, StoreCondition
from service.watch.metrics import STORE_SECONDS

LONGEST_SECONDS = 20.0
"""Longest time of one operation. If a cluster does not answer, requests ask for its slots one after
another, each waiting for those before it."""

_SCANNED = 1000
"""Keys that the store scans in one step."""

_PAUSES = (0.1, 0.2)
"""Seconds before each retry: enough for a broken connection to recover, short enough for a
request."""

DEFAULT_CONNECTIONS = 100

_Answer = TypeVar("_Answer")


class StoreSession:
    """Every method raises StoreUnavailableError if the store is away or refuses; its cause says
    why. Operations wait where all `connections` are in use.

    For a single Redis, or for the current primary that `sentinels` name.
    """

    def __init__(
        self,
        client: redis.Redis | RedisCluster,
        sentinels: Sentinel | None = None,
        connections: int = DEFAULT_CONNECTIONS,
    ) -> None:
        self._client = client
        self._sentinels = sentinels
        # An operation uses at most one connection to each node.
        self._connections = asyncio.Semaphore(connections)
        self.condition = StoreCondition()

    async def close(self) -> None:
        await self._client.aclose()
        if self._sentinels is not None:
            await self._sentinels.aclose()

    async def ping(self) -> None:
        """Tries all that the service needs of the store, with commands that change nothing."""
        async with self._timed("ping"):
            await self._answers([("PING",)])
            await self._try_commands()

    async def _try_commands(self) -> None:
        try:
            await self._answers([commands.trial()])
        except exceptions.ResponseError as error:
            if NO_REPLICAS not in str(error):
                raise

    async def memory_bytes(self) -> int:
        """Memory of the store, with its clients' buffers, without replicas."""
        async with self._timed("ping"):
            return sum(await self._steadily(self._memory_of_primaries))

    async def answers(
        self, operation: str, batch: Sequence[Command], *, again: bool = True
    ) -> list[Any]:
        """The answers to a batch of commands. They run in order, except in a cluster."""
        async with self._timed(operation):
            return await self._answers(batch, again=again)

    async def keys_of(self, start: str) -> AsyncIterator[list[str]]:
        """All keys with this prefix, in steps of a bounded number of keys scanned."""
        for client in await self._primaries():
            cursor = 0
            while True:
                async with self._timed("names"):
                    scan = partial(client.execute_command, "SCAN", cursor, "MATCH", f"{start}*")
                    cursor, keys = await self._steadily(partial(scan, "COUNT", _SCANNED))
                yield [key.decode() for key in keys]
                if not int(cursor):
                    break

    async def _primaries(self) -> Sequence[Any]:
        return [self._client]

    async def _answers(self, batch: Sequence[Command], *, again: bool = True) -> list[Any]:
        """The answers to a batch of commands. A deletion must not be tried `again`: the second try
        would not find what the first has deleted."""

        async def ask() -> list[Any]:
            pipeline = self._client.pipeline(transaction=False)
            for command in batch:
                pipeline.execute_command(*command)
            return await pipeline.execute()

        return await (self._steadily(ask) if again else ask())

    async def _steadily(self, work: Callable[[], Awaitable[_Answer]]) -> _Answer:
        """Runs idempotent work, and retries it while the store is away or its primary changes.
        redis-py's own retry uses the same address, although the Sentinels may know another.
        """
        for pause in _PAUSES:
            try:
                return await work()
            except AWAY:
                await asyncio.sleep(pause)
                await self._look_again()
        return await work()

    async def _memory_of_primaries(self) -> list[int]:
        info = await self._client.info("memory")
        return [info["used_memory"]]

    async def _look_again(self) -> None:
        """Finds out where the store is now. New connections do so themselves."""

    @asynccontextmanager
    async def _timed(self, operation: str) -> AsyncIterator[None]:
        """Waits for a connection, times an operation, and turns what redis-py raises into the
        contract's errors."""
        async with self._connections:
            try:
                async with asyncio.timeout(LONGEST_SECONDS):
                    with STORE_SECONDS.labels(operation).time():
                        yield
            except FAILURES as error:
                failure = self.condition.failure(operation, error)
                if failure is None:
                    raise
                raise failure from error
        self.condition.success(operation)
