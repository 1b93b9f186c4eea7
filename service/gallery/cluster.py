"""The gallery in a Redis Cluster: the records of a collection are spread over all its nodes.

There is no transaction over several nodes. A registration here claims the collection's sizes,
writes the records, and lists them only when all are written; if a node refuses, the previous
records are put back. The claim keeps registrations of other sizes from writing meanwhile; it
expires, and the list decides. This does not cover everything: a service that dies in between, or a
node that is lost, leaves records that are on no list. They are found by id; registering or deleting
them again repairs it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import structlog
from redis import exceptions
from redis.asyncio.cluster import ClusterNode, RedisCluster

from model.descriptors import DescriptorSizes
from service.gallery import commands
from service.gallery.commands import Command
from service.gallery.condition import AWAY, FAILURES
from service.gallery.keys import collection_of, generation_keys, image_key, thumbnail_key
from service.gallery.record import HEADER_BYTES
from service.gallery.session import DEFAULT_CONNECTIONS, LONGEST_SECONDS
from service.gallery.store import Fetched, GalleryStore
from service.gallery.urls import Node

log = structlog.get_logger(__name__)

_PreviousRecords = dict[str, tuple[bytes, int]]
"""By id: the previous records, with their milliseconds to live (-1: for ever)."""


class ClusterStore(GalleryStore):
    """`startup`: the nodes of the URL, which are asked again if no other known node answers."""

    def __init__(
        self,
        cluster: RedisCluster,
        startup: Sequence[Node],
        connections: int = DEFAULT_CONNECTIONS,
    ) -> None:
        super().__init__(cluster, connections=connections)
        self._cluster = cluster
        self._startup = list(startup)

    async def ping(self) -> None:
        """Every primary must answer: a shortlist has images on all of them."""

        async def ask() -> None:
            await self._cluster.initialize()
            states = await asyncio.gather(
                *(node.execute_command("CLUSTER INFO") for node in self._cluster.get_primaries())
            )
            if any(state["cluster_state"] != "ok" for state in states):
                raise exceptions.ClusterDownError("a node says that the cluster is down")

        async with self._timed("ping"):
            await self._steadily(ask)
            await self._try_commands()

    async def put(
        self,
        generation: str,
        records: dict[str, bytes],
        sizes: DescriptorSizes,
        ttl_seconds: int | None,
    ) -> int:
        async with self._timed("put"):
            await self._drop_expired(generation)
            # Also a test: if a node is away, nothing has been changed yet.
            previous = await self._previous(generation, list(records))
            await self._checked(commands.claim(generation, sizes), generation, sizes)
            keys = {image_id: image_key(generation, image_id) for image_id in records}
            try:
                await self._by_node(
                    [commands.set_record(keys[i], r, ttl_seconds) for i, r in records.items()]
                )
                listing = commands.list_ids(generation, list(records), sizes, ttl_seconds)
                await self._checked(listing, generation, sizes)
            except BaseException:
                await self._put_back(generation, records, previous)
                raise
        return len(previous)

    async def fetch(self, generation: str, ids: Sequence[str]) -> Fetched:
        async with self._timed("fetch"):
            *records, expiring = await self._answers(
                [
                    *(("GET", image_key(generation, i)) for i in ids),
                    commands.count_expiring(generation),
                ]
            )
            return Fetched(records, expiring > 0)

    async def delete(self, generation: str, image_id: str) -> bool:
        async with self._timed("delete"):
            # In this order, a list names no missing image, except one that is registered meanwhile.
            await self._answers([commands.unlist(generation, [image_id])])
            keys = image_key(generation, image_id), thumbnail_key(generation, image_id)
            deleted, _ = await self._answers([("DEL", key) for key in keys], again=False)
        return bool(deleted)

    async def _previous(self, generation: str, ids: Sequence[str]) -> _PreviousRecords:
        keys = [image_key(generation, image_id) for image_id in ids]
        answers = await self._answers([(name, key) for key in keys for name in ("GET", "PTTL")])
        rows = zip(ids, answers[::2], answers[1::2], strict=True)
        return {i: (record, ttl_ms) for i, record, ttl_ms in rows if record and ttl_ms != -2}

    async def _put_back(
        self, generation: str, records: dict[str, bytes], previous: _PreviousRecords
    ) -> None:
        ids = list(records)
        undo = []
        for image_id in ids:
            old, ttl_ms = previous.get(image_id, (b"", -1))
            ours = records[image_id][:HEADER_BYTES]
            undo.append(commands.put_back(image_key(generation, image_id), ours, old, ttl_ms))
        try:
            async with asyncio.timeout(LONGEST_SECONDS):
                outcomes = await self._by_node(undo)
                new = [
                    i
                    for i, changed in zip(ids, outcomes, strict=True)
                    if changed and i not in previous
                ]
                # Has an effect only if the ids were listed and the answer was lost.
                unlisting = commands.unlist(generation, new)
                _, _, _, claim_key, _ = generation_keys(generation)
                await self._answers([unlisting, ("DEL", claim_key)])
        except FAILURES as error:
            log.error(
                "registration_not_undone", collection=collection_of(generation), why=str(error)
            )

    async def _by_node(self, batch: Sequence[Command]) -> list[Any]:
        """Like `_answers`, but waits for all nodes, even if one fails: what is done next must not
        be overtaken by what was sent before. Raises the first error."""
        groups: dict[str, list[int]] = {}
        for place, command in enumerate(batch):
            key = str(command[3] if command[0] == "EVAL" else command[1])
            node = self._cluster.get_node_from_key(key)
            groups.setdefault("" if node is None else node.name, []).append(place)
        results = await asyncio.gather(
            *(self._answers([batch[place] for place in group]) for group in groups.values()),
            return_exceptions=True,
        )
        answers: list[Any] = [None] * len(batch)
        for group, result in zip(groups.values(), results, strict=True):
            if isinstance(result, BaseException):
                raise result
            for place, answer in zip(group, result, strict=True):
                answers[place] = answer
        return answers

    async def _headers(self, generation: str, ids: Sequence[str]) -> list[bytes]:
        keys = [image_key(generation, image_id) for image_id in ids]
        return await self._answers([("GETRANGE", key, 0, HEADER_BYTES - 1) for key in keys])

    def _removal(self, keys: Sequence[str]) -> Sequence[Command]:
        return [("UNLINK", key) for key in keys]

    async def _primaries(self) -> Sequence[ClusterNode]:
        async with self._timed("names"):
            await self._cluster.initialize()
            return self._cluster.get_primaries()

    async def _memory_of_primaries(self) -> list[int]:
        await self._cluster.initialize()
        nodes = self._cluster.get_primaries()
        answers = await asyncio.gather(*(node.execute_command("INFO", "memory") for node in nodes))
        return [answer["used_memory"] for answer in answers]

    async def _look_again(self) -> None:
        with suppress(*AWAY):
            await self._cluster.nodes_manager.initialize(self._startup)
