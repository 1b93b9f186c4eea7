"""What names stand for: collections, their generations, and aliases.

Emptying or dropping a collection is atomic: it switches to another generation. The old one stays
until it is swept (sweeper.py), so requests that began before still find their images. An alias has
its collection in its own hash, and moves in one step too.

In a cluster an alias and its collection lie in different slots. A collection therefore keeps the
*intents* of aliases to point there. An intent is written before the alias moves here and removed
after it has moved away; a collection with a valid intent is not dropped. Every move has an intent
of its own, so that no move removes another's. An intent that a crashed service left is valid for
at most INTENT_SECONDS.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from model.descriptors import DescriptorSizes
from service.api.errors import CollectionInUseError, NameTakenError, NotFoundError
from service.gallery import commands, name_commands
from service.gallery.commands import Command
from service.gallery.keys import (
    ALIASES,
    COLLECTIONS,
    EMPTIED,
    IDS,
    SEARCHED,
    collection_of,
    generation_of,
    image_key,
    name_key,
)
from service.gallery.shared_work import SharedWork
from service.gallery.store import GalleryStore

_AT_ONCE = 50
"""Collections in one batch of commands: a long list must not block the event loop."""

_TRIES, _PAUSE_SECONDS = 10, 0.1
"""How long to wait for an alias that is moving to or from a collection."""

_SHOWN = 20


@dataclass(frozen=True)
class Name:
    """What a name stands for: an alias, or a collection's current generation. `made`: whether the
    collection exists (those from before there were names do not say so)."""

    alias: str | None
    token: str
    made: bool


@dataclass(frozen=True)
class Summary:
    """`size`: bytes of the records, exact up to `name_commands.SAMPLE` records, else estimated."""

    name: str
    count: int
    sizes: DescriptorSizes | None
    size: int
    aliases: list[str]


class Names:
    """Raises what `GalleryStore` raises."""

    def __init__(self, store: GalleryStore) -> None:
        self._store = store
        self._aliases: dict[str, tuple[str, str]] = {}
        self._resolutions = SharedWork(self._resolve)

    async def resolve(self, name: str) -> str:
        """The generation that a name stands for now. Takes one round trip if that has not changed
        since the last call."""
        return await self._resolutions.result(name)

    async def _resolve(self, name: str) -> str:
        """The collection may be emptied between the reads of the alias and of the collection: the
        two are consistent once both are as they were before."""
        previous = self._aliases.get(name)
        while True:
            names = [name] if previous is None else [previous[0], name]
            *target, own = await self._look(names, "resolve")
            if own.alias is None:
                self._aliases.pop(name, None)
                return generation_of(name, own.token)
            current = (
                own.alias,
                (target[0].token if previous and previous[0] == own.alias else ""),
            )
            if target and current == previous:
                return generation_of(*current)
            self._aliases[name] = previous = current

    async def empty(self, name: str) -> tuple[str, int]:
        """Empties a collection. Returns its name and how many images it had. Raises
        NotFoundError."""
        while True:
            generation = await self.resolve(name)
            count = await self._end(generation, drop=False)
            if count != commands.OVER:
                return collection_of(generation), count

    async def drop(self, name: str) -> None:
        """Raises NotFoundError, and CollectionInUseError while an alias points at it."""
        for _ in range(_TRIES):
            generation = await self.resolve(name)
            count = await self._end(generation, drop=True)
            if count >= 0:
                return
            if count == name_commands.IN_USE:
                await asyncio.sleep(_PAUSE_SECONDS)
        collection = collection_of(generation)
        raise CollectionInUseError(f"collection {collection!r} is being changed", aliases=[])

    async def forget(self, collection: str) -> None:
        """Removes all traces of a collection without images that nobody else uses; `drop` keeps a
        note of its generations."""
        await self._ask([("DEL", name_key(collection)), ("ZREM", COLLECTIONS, collection)])

    async def _end(self, generation: str, *, drop: bool) -> int:
        collection = collection_of(generation)
        elsewhere = await self._intents_elsewhere(collection) if drop else {}
        before = [name_commands.note(EMPTIED, [collection], timed=True)]
        if drop:
            # Whoever registers into it after this lists it again, or finds it dropped.
            before.append(("ZREM", COLLECTIONS, collection))
        _, *listed = await self._ask(before)
        ending = name_commands.end(generation, secrets.token_hex(6), drop=drop, elsewhere=elsewhere)
        (count,) = await self._ask([ending], again=False)
        if count < 0 and any(listed):
            await self._ask([name_commands.note(COLLECTIONS, [collection])])
        if count == name_commands.UNKNOWN:
            raise NotFoundError(f"no collection {collection!r}")
        return int(count)

    async def _intents_elsewhere(self, collection: str) -> list[bytes]:
        """Raises CollectionInUseError if an alias points here."""
        (intents,) = await self._ask([name_commands.intents(collection)])
        here = await self._pointing({collection: intents})
        if here[collection]:
            raise CollectionInUseError(
                f"an alias points at collection {collection!r}: {here[collection][0]!r}",
                aliases=here[collection][:_SHOWN],
            )
        return list(intents)

    async def _pointing(self, intents: Mapping[str, Mapping[bytes, bytes]]) -> dict[str, list[str]]:
        """Of aliases that intended to point to collections, those that do, by collection."""
        aliases = sorted({alias.decode() for some in intents.values() for alias in some.values()})
        looked = await self._look(aliases)
        return {
            collection: [a for a, n in zip(aliases, looked, strict=True) if n.alias == collection]
            for collection in intents
        }

    async def point(self, alias: str, name: str) -> tuple[str, str | None]:
        """Points an alias at a collection. Returns this and the previous collection. Raises
        NotFoundError and NameTakenError."""
        while True:
            generation = await self.resolve(name)
            collection = collection_of(generation)
            intending = name_commands.intend(generation, alias, secrets.token_hex(6))
            _, intent = await self._ask([name_commands.note(ALIASES, [alias]), intending])
            if intent == name_commands.UNKNOWN:
                raise NotFoundError(f"no collection {collection!r}")
            if intent != commands.OVER:
                break
        pointing = name_commands.point(alias, collection, intent)
        (answer,) = await self._ask([pointing], again=False)
        if answer == 0:
            await self._ask([name_commands.forget(collection, intent)])
            raise NameTakenError(f"{alias!r} is a collection", collection=alias)
        # Whoever deleted it meanwhile may have taken it off the list.
        await self._ask([name_commands.note(ALIASES, [alias])])
        previous, its_intent = answer[0].decode(), answer[1]
        if previous:
            await self._ask([name_commands.forget(previous, its_intent)])
        return collection, previous or None

    async def unpoint(self, alias: str) -> None:
        """Raises NotFoundError."""
        await self._ask([("ZREM", ALIASES, alias)])
        (answer,) = await self._ask([name_commands.unpoint(alias)], again=False)
        collection, intent = answer[0].decode(), answer[1]
        if not collection:
            raise NotFoundError(f"no alias {alias!r}")
        await self._ask([name_commands.forget(collection, intent)])

    async def aliases(
        self, limit: int, after: str | None
    ) -> tuple[list[tuple[str, str]], str | None]:
        """Pairs (alias, collection) in order, starting behind `after`; and the next `after`."""
        names, following = await self._listed(ALIASES, limit, after)
        looked = await self._look(names)
        pairs = zip(names, looked, strict=True)
        return [(alias, name.alias) for alias, name in pairs if name.alias], following

    async def collections(self, limit: int, after: str | None) -> tuple[list[Summary], str | None]:
        """As `aliases`."""
        await self._note_old_collections()
        names, following = await self._listed(COLLECTIONS, limit, after)
        summaries: list[Summary] = []
        for start in range(0, len(names), _AT_ONCE):
            summaries += await self._summaries(names[start : start + _AT_ONCE])
        return summaries, following

    async def collection(self, name: str) -> Summary:
        """Raises NotFoundError."""
        collection = collection_of(await self.resolve(name))
        summaries = await self._summaries([collection])
        if not summaries:
            raise NotFoundError(f"no collection {collection!r}")
        return summaries[0]

    async def _summaries(self, collections: Sequence[str]) -> list[Summary]:
        names = await self._look(collections)
        generations = [generation_of(c, n.token) for c, n in zip(collections, names, strict=True)]
        answers = await self._ask(
            [
                *map(name_commands.summary, generations),
                *map(name_commands.intents, collections),
            ]
        )
        looked, intents = answers[: len(names)], answers[len(names) :]
        sizes = await self._record_sizes(generations, [ids for _, _, *ids in looked])
        aliases = await self._pointing(dict(zip(collections, intents, strict=True)))
        summaries = []
        for place, (count, sizes_text, *ids) in enumerate(looked):
            collection = collections[place]
            if names[place].alias or not (names[place].made or ids):
                continue
            its_sizes = commands.sizes_from(sizes_text) if count and sizes_text else None
            if count and not sizes_text:
                its_sizes = (await self._store.page(generations[place], 1, None)).sizes
            known_sizes = [size for size in sizes[place] if size]
            size = round(sum(known_sizes) / len(known_sizes) * count) if known_sizes else 0
            summaries.append(Summary(collection, count, its_sizes, size, aliases[collection]))
        return summaries

    async def _record_sizes(
        self, generations: Sequence[str], ids: Sequence[Sequence[bytes]]
    ) -> list[list[int]]:
        """In bytes, by generation; 0 if there is no record."""
        pairs = zip(generations, ids, strict=True)
        lengths = [("STRLEN", image_key(g, i.decode())) for g, some in pairs for i in some]
        answers = iter(await self._ask(lengths))
        return [[next(answers) for _ in some] for some in ids]

    async def _look(self, names: Sequence[str], operation: str = "names") -> list[Name]:
        answers = await self._ask([name_commands.look(name) for name in names], operation)
        return [
            Name(alias and alias.decode(), (token or b"").decode(), bool(made))
            for alias, token, made in answers
        ]

    async def _ask(
        self, batch: Sequence[Command], operation: str = "names", *, again: bool = True
    ) -> list[Any]:
        return await self._store.answers(operation, batch, again=again) if batch else []

    async def _listed(
        self, key: str, limit: int, after: str | None
    ) -> tuple[list[str], str | None]:
        (answer,) = await self._ask([name_commands.names_after(key, after, limit + 1)])
        names = [name.decode() for name in answer]
        return names[:limit], names[limit - 1] if len(names) > limit else None

    async def _note_old_collections(self) -> None:
        """Lists collections from before there was a list; once in the life of a store."""
        (entry,) = await self._ask([("EXISTS", SEARCHED)])
        if entry:
            return
        async for keys in self._store.keys_of(f"{IDS}{{"):
            names = sorted({key.removeprefix(f"{IDS}{{").partition("}")[0] for key in keys})
            looked = await self._look(names)
            # What is dropped and not yet swept has ids too.
            old = [n for n, entry in zip(names, looked, strict=True) if not entry.token]
            if old:
                await self._ask([name_commands.note(COLLECTIONS, old)])
        await self._ask([name_commands.note(SEARCHED, ["all"])])
