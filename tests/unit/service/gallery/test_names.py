"""Collections are listed, emptied and dropped, and aliases moved: on one Valkey and a cluster."""

from __future__ import annotations

import asyncio

import pytest

from service.api.errors import CollectionInUseError, NameTakenError, NotFoundError, StoreFullError
from service.gallery import sweeper
from service.gallery.name_commands import INTENT_SECONDS, SAMPLE
from service.gallery.names import Names, Summary
from service.gallery.registered_images import Gallery
from service.gallery.sweeper import Sweeper
from tests.unit.service.gallery.rig import LARGE, SMALL, On, Rig, packed, records

WHOLE = 1000


def names_of(rig: Rig) -> tuple[Names, Names]:
    one, other = map(Names, rig.stores)
    return one, other


async def ids_in(gallery: Gallery, name: str) -> list[str]:
    return (await gallery.page(await gallery.names.resolve(name), WHOLE, None)).ids


async def fetched(gallery: Gallery, name: str, *ids: str) -> set[str]:
    return set(await gallery.fetch(await gallery.names.resolve(name), ids))


async def listed(names: Names) -> list[str]:
    summaries, _ = await names.collections(WHOLE, None)
    return [summary.name for summary in summaries]


def test_a_collection_is_listed_with_what_it_has(on: On) -> None:
    async def work(rig: Rig) -> None:
        (gallery, _), (names, other) = rig.galleries, names_of(rig)
        assert await listed(names) == []
        ids = [f"{n:03}" for n in range(3 * SAMPLE)]
        await gallery.register("many", records(SMALL, *ids), None)
        await gallery.register("few", records(LARGE, "a", "b"), None)
        await names.point("now", "few")
        await names.point("before", "few")
        size = len(packed(LARGE, "a")["a"])
        few = Summary("few", 2, LARGE, 2 * size, ["before", "now"])
        many = Summary("many", len(ids), SMALL, len(ids) * len(packed(SMALL, "a")["a"]), [])
        assert await other.collections(WHOLE, None) == ([few, many], None)
        assert await other.collections(1, None) == ([few], "few")
        assert await other.collections(1, "few") == ([many], None)
        assert await other.collection("few") == await other.collection("now") == few
        with pytest.raises(NotFoundError, match="'none'"):
            await other.collection("none")

    on(work)


def test_its_bytes_are_estimated_from_records_over_all_ids(on: On) -> None:
    async def work(rig: Rig) -> None:
        store, _ = rig.stores
        names, _ = names_of(rig)
        small = {f"a{n:03}": bytes(100) for n in range(100)}
        large = {f"b{n:03}": bytes(900) for n in range(300)}
        await store.put("x", small | large, SMALL, None)
        assert (await names.collection("x")).size == 100 * 100 + 300 * 900

    on(work)


def test_images_that_have_expired_do_not_count(on: On) -> None:
    async def work(rig: Rig) -> None:
        (gallery, _), (names, _) = rig.galleries, names_of(rig)
        await gallery.register("x", records(SMALL, "short"), 1)
        await gallery.register("x", records(SMALL, "long"), None)
        await asyncio.sleep(1.1)
        one = Summary("x", 1, SMALL, len(packed(SMALL, "a")["a"]), [])
        assert await names.collection("x") == one

    on(work)


def test_collections_from_before_there_were_names_are_listed(on: On) -> None:
    async def work(rig: Rig) -> None:
        for number in range(30):
            for image_id, record in packed(SMALL, "a").items():
                await rig.raw.set(f"locore:image:old-{number:02}|{image_id}", record)
                await rig.raw.zadd(f"locore:ids:{{old-{number:02}}}", {image_id: 0})
        names, other = names_of(rig)
        expected = [f"old-{number:02}" for number in range(30)]
        assert await listed(names) == expected
        assert (await names.collection("old-00")).sizes == SMALL
        with pytest.raises(NameTakenError):
            await names.point("old-00", "old-01")
        await names.point("alias", "old-00")
        assert await other.empty("old-01") == ("old-01", 1)
        assert (await other.collection("old-01")).count == 0
        await names.drop("old-02")
        assert await listed(other) == [name for name in expected if name != "old-02"]

    on(work)


def test_an_emptied_collection_begins_anew(on: On) -> None:
    async def work(rig: Rig) -> None:
        (gallery, other), (names, _) = rig.galleries, names_of(rig)
        await gallery.register("x", records(SMALL, "a", "b"), None)
        await names.point("alias", "x")
        before = await gallery.names.resolve("x")
        assert await names.empty("alias") == ("x", 2)
        assert await fetched(other, "x", "a", "b") == set()
        assert await ids_in(other, "alias") == []
        assert await names.collection("x") == Summary("x", 0, None, 0, ["alias"])
        # Who looked before still finds what there was.
        assert set(await gallery.fetch(before, ["a", "b"])) == {"a", "b"}
        await other.register("alias", records(LARGE, "b", "c"), None)
        assert await fetched(gallery, "x", "a", "b", "c") == {"b", "c"}
        assert await names.empty("x") == ("x", 2)
        assert await names.empty("x") == ("x", 0)
        with pytest.raises(NotFoundError):
            await names.empty("none")

    on(work)


def test_a_dropped_collection_is_none_until_it_is_registered_again(on: On) -> None:
    async def work(rig: Rig) -> None:
        (gallery, other), (names, _) = rig.galleries, names_of(rig)
        await gallery.register("x", records(SMALL, "a"), None)
        await gallery.register("y", records(SMALL, "a"), None)
        await names.drop("x")
        assert await listed(names) == ["y"]
        assert await fetched(other, "x", "a") == set()
        for attempt in (names.drop("x"), names.empty("x"), names.point("alias", "x")):
            with pytest.raises(NotFoundError):
                await attempt
        await other.register("x", records(LARGE, "b"), None)
        assert await listed(names) == ["x", "y"]
        assert await fetched(gallery, "x", "a", "b") == {"b"}

    on(work)


def test_what_is_over_is_swept_and_nothing_else(on: On) -> None:
    async def work(rig: Rig) -> None:
        (gallery, _), (names, _) = rig.galleries, names_of(rig)
        now, later = (Sweeper(rig.stores[0], grace_seconds=s) for s in (0, 1000))
        ids = [f"{n:03}" for n in range(450)]
        await gallery.register("x", records(SMALL, *ids), None)
        await gallery.register("x", records(SMALL, "short"), 600)
        await gallery.register("y", records(SMALL, "a"), None)
        await names.empty("x")
        await gallery.register("x", records(SMALL, "001", "new"), None)
        await names.empty("x")
        await gallery.register("x", records(SMALL, "002", "new"), None)
        before = await rig.raw.dbsize()
        assert await later.sweep() == 0
        assert await rig.raw.dbsize() == before
        assert await now.sweep() == 453
        assert await ids_in(gallery, "x") == ["002", "new"]
        assert await fetched(gallery, "x", "001", "002", "new") == {"002", "new"}
        await names.drop("x")
        await names.drop("y")
        assert await now.sweep() == 3
        assert await now.sweep() == 0
        # What a dropped name leaves: which generation is its next.
        claims = {key for key in await rig.keys() if b"claim" in key}
        remaining_keys = await rig.keys() - claims
        assert remaining_keys == {b"locore:name:{x}", b"locore:name:{y}"}

    on(work)


def test_a_sweep_that_broke_off_is_taken_up(on: On, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(rig: Rig) -> None:
        (gallery, _), (names, _) = rig.galleries, names_of(rig)
        store, other = rig.stores
        await gallery.register("x", records(SMALL, *(f"{n:03}" for n in range(600))), None)
        await names.empty("x")
        # It pauses after its first step for as long as the test takes.
        with monkeypatch.context() as patch:
            patch.setattr(sweeper, "_PAUSE_SECONDS", 600)
            sweep = asyncio.create_task(Sweeper(store, grace_seconds=0).sweep())
            while await rig.raw.zcard("locore:ids:{x}") == 600:
                pass
            # Another leaves it alone meanwhile.
            assert await Sweeper(other, grace_seconds=0).sweep() == 0
            sweep.cancel()
            await asyncio.wait((sweep,))
        assert 0 < await Sweeper(other, grace_seconds=0).sweep() < 600
        assert not [key async for key in rig.raw.scan_iter("locore:image:*")]

    on(work)


def test_an_alias_is_made_moved_and_deleted(on: On) -> None:
    async def work(rig: Rig) -> None:
        (gallery, other), (names, theirs) = rig.galleries, names_of(rig)
        await gallery.register("one", records(SMALL, "a"), None)
        await gallery.register("two", records(LARGE, "b"), None)
        assert await names.point("alias", "one") == ("one", None)
        assert await names.point("also", "alias") == ("one", None)
        for each in (gallery, other):
            assert await ids_in(each, "alias") == await ids_in(each, "also") == ["a"]
        assert await names.point("alias", "two") == ("two", "one")
        for each in (gallery, other):
            assert await ids_in(each, "alias") == ["b"]
        await other.register("alias", records(LARGE, "c"), None)
        assert await ids_in(gallery, "two") == ["b", "c"]
        assert await theirs.aliases(WHOLE, None) == ([("alias", "two"), ("also", "one")], None)
        assert await theirs.aliases(1, None) == ([("alias", "two")], "alias")
        assert await theirs.aliases(1, "alias") == ([("also", "one")], None)
        await theirs.unpoint("alias")
        assert await ids_in(gallery, "alias") == []
        assert await names.aliases(WHOLE, None) == ([("also", "one")], None)
        with pytest.raises(NotFoundError):
            await names.unpoint("alias")
        with pytest.raises(NotFoundError):
            await names.unpoint("one")
        with pytest.raises(NotFoundError):
            await names.point("alias", "none")
        # The name is free again.
        await gallery.register("alias", records(SMALL, "d"), None)
        assert await listed(names) == ["alias", "one", "two"]

    on(work)


def test_a_name_is_a_collection_or_an_alias(on: On) -> None:
    async def work(rig: Rig) -> None:
        (gallery, _), (names, _) = rig.galleries, names_of(rig)
        await gallery.register("one", records(SMALL, "a"), None)
        await gallery.register("two", records(SMALL, "a"), None)
        with pytest.raises(NameTakenError, match="'two'"):
            await names.point("two", "one")
        with pytest.raises(NameTakenError):
            await names.point("one", "one")
        # Nothing of it is left: both can be dropped.
        await names.drop("two")
        assert await names.point("two", "one") == ("one", None)
        with pytest.raises(CollectionInUseError) as caught:
            await names.drop("one")
        assert caught.value.details == {"aliases": ["two"]}
        with pytest.raises(CollectionInUseError):
            await names.drop("two")
        await names.unpoint("two")
        await names.drop("one")

    on(work)


def test_an_intent_that_came_to_nothing_holds_for_a_while(on: On) -> None:
    """Of a service that died before it had moved the alias."""

    async def work(rig: Rig) -> None:
        (gallery, _), (names, _) = rig.galleries, names_of(rig)
        await gallery.register("x", records(SMALL, "a"), None)
        now = (await rig.raw.time())[0]
        await rig.raw.hset("locore:aliased:{x}", f"{now - INTENT_SECONDS + 5} token", "alias")
        with pytest.raises(CollectionInUseError):
            await names.drop("x")
        assert await listed(names) == ["x"]
        assert (await names.collection("x")).aliases == []
        await rig.raw.delete("locore:aliased:{x}")
        await rig.raw.hset("locore:aliased:{x}", f"{now - INTENT_SECONDS - 5} token", "alias")
        await names.drop("x")

    on(work)


def test_a_full_store_can_be_emptied_and_swept(on: On) -> None:
    async def work(rig: Rig) -> None:
        (gallery, _), (names, _) = rig.galleries, names_of(rig)
        await gallery.register("x", records(SMALL, "a"), None)
        await gallery.register("y", records(SMALL, "a"), None)
        await names.point("alias", "x")
        await rig.raw.config_set("maxmemory", 1)
        with pytest.raises(StoreFullError):
            await names.point("alias", "y")
        assert await names.resolve("alias") == "x"
        await names.unpoint("alias")
        assert await names.empty("x") == ("x", 1)
        await names.drop("y")
        assert await Sweeper(rig.stores[0], grace_seconds=0).sweep() == 2
        await rig.raw.config_set("maxmemory", 0)

    on(work)
