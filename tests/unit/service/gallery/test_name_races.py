"""Changes of names by two services at the same moments: what is true after all of them, and what
readers see meanwhile."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import redis.asyncio as redis

from service.api.errors import CollectionInUseError, NameTakenError, NotFoundError
from service.gallery.names import Names
from service.gallery.record import GalleryRecord
from service.gallery.registered_images import Gallery
from service.gallery.store_connection import connect_store
from service.gallery.sweeper import Sweeper
from tests.slow.valkey_nodes import Node, valkey_cluster
from tests.unit.service.gallery.rig import SMALL, records

IDS = [f"{number:02}" for number in range(12)]
NAMES = ("a", "b", "c", "d")
WHOLE = 1000


@pytest.fixture(scope="module", params=["one", "cluster"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a store, or of a cluster of three nodes: what is sent together is not done in order."""
    folder = tmp_path_factory.mktemp("nodes")
    if request.param == "cluster":
        with valkey_cluster(folder / "cluster") as (nodes, _):
            yield "redis+cluster://" + ",".join(node.address for node in nodes)
        return
    node: Node = request.getfixturevalue("one")
    yield f"redis://{node.address}"


@asynccontextmanager
async def two_galleries(url: str) -> AsyncIterator[tuple[Gallery, Gallery]]:
    """Of two services, on an empty store."""
    stores = connect_store(url), connect_store(url)
    for address in url.partition("//")[2].split(","):
        async with redis.Redis.from_url(f"redis://{address}") as raw:
            await raw.flushall()
    try:
        async with asyncio.timeout(100):
            one, other = (Gallery(s, cache_bytes=1 << 20, dtype="float32") for s in stores)
            yield one, other
    finally:
        for store in stores:
            await store.close()


def version(number: int) -> dict[str, GalleryRecord]:
    """A gallery whose images say in their metadata which one it is."""
    images = records(SMALL, *IDS)
    return {i: GalleryRecord(r.descriptors, {"version": number}) for i, r in images.items()}


async def versions(gallery: Gallery, name: str) -> list[int]:
    records = await gallery.fetch(await gallery.names.resolve(name), IDS)
    return [(record.metadata or {})["version"] for record in records.values()]


async def change(gallery: Gallery, rng: random.Random, number: int) -> None:
    names = gallery.names
    name, other = rng.sample(NAMES, 2)
    try:
        match rng.choice(["register", "register", "empty", "drop", "point", "point", "unpoint"]):
            case "register":
                await gallery.register(name, version(number), None)
            case "empty":
                await names.empty(name)
            case "drop":
                await names.drop(name)
            case "point":
                await names.point(name, other)
            case "unpoint":
                await names.unpoint(name)
    except (NotFoundError, NameTakenError, CollectionInUseError):
        pass


async def check(names: Names) -> None:
    """Every name is one thing, every alias has a collection, and both are listed."""
    looked = dict(zip(NAMES, await names._look(NAMES), strict=True))
    collections = {name for name, entry in looked.items() if entry.made}
    aliases = {name: entry.alias for name, entry in looked.items() if entry.alias}
    assert not collections & aliases.keys()
    assert set(aliases.values()) <= collections
    summaries, _ = await names.collections(WHOLE, None)
    assert {summary.name for summary in summaries} == collections
    assert dict((await names.aliases(WHOLE, None))[0]) == aliases
    for summary in summaries:
        assert summary.aliases == sorted(a for a, c in aliases.items() if c == summary.name)


@pytest.mark.parametrize("seed", range(4))
def test_names_hold_together_whatever_happens_at_once(url: str, seed: int) -> None:
    async def work() -> None:
        rng = random.Random(seed)
        async with two_galleries(url) as galleries:
            for turn in range(60):
                await asyncio.gather(
                    *(change(galleries[n % 2], rng, 10 * turn + n) for n in range(6))
                )
                await check(galleries[0].names)

    asyncio.run(work())


def test_readers_see_one_gallery_whole_while_an_alias_moves(url: str) -> None:
    """And the old one is dropped and swept at once after its time."""

    async def work() -> None:
        async with two_galleries(url) as (one, other):
            await one.register("gallery-0", version(0), None)
            await one.names.point("alias", "gallery-0")
            newest, over = 0, False

            async def read(gallery: Gallery) -> int:
                reads = 0
                while not over:
                    oldest = newest
                    (version,) = set(await versions(gallery, "alias"))
                    assert version >= oldest
                    assert len(await versions(gallery, "alias")) == len(IDS)
                    reads += 1
                return reads

            readers = [asyncio.create_task(read(g)) for g in (one, other, one, other)]
            for number in range(1, 60):
                await one.register(f"gallery-{number}", version(number), None)
                await one.names.point("alias", f"gallery-{number}")
                newest = number
                # Of any reader that looked before: less than the sweeper's own.
                await other.names.empty(f"gallery-{number - 1}")
                await one.names.drop(f"gallery-{number - 1}")
            over = True
            assert min(await asyncio.gather(*readers)) > 20

    asyncio.run(work())


def test_a_registration_is_wholly_before_an_emptying_or_wholly_after(url: str) -> None:
    async def work() -> None:
        async with two_galleries(url) as (one, other):
            nonempty = 0
            for number in range(1, 41):
                await one.register("x", version(0), None)
                registration = asyncio.create_task(one.register("x", version(number), None))
                await asyncio.sleep(number % 8 / 2000)
                emptied = await other.names.empty("x")
                await registration
                assert emptied == ("x", len(IDS))
                for gallery in (one, other):
                    numbers = await versions(gallery, "x")
                    assert numbers in ([], [number] * len(IDS))
                count = (await one.names.collection("x")).count
                assert count == len(numbers)
                nonempty += bool(numbers)
                await one.names.empty("x")
            assert 0 < nonempty < 40
            # Nothing that it wrote into what was over is left.
            await Sweeper(one._store, grace_seconds=0).sweep()
            for address in url.partition("//")[2].split(","):
                async with redis.Redis.from_url(f"redis://{address}") as raw:
                    assert not [key async for key in raw.scan_iter("locore:image:*")]

    asyncio.run(work())
