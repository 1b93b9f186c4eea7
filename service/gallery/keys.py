"""The keys of the store. Pure.

`locore:image:COLLECTION|ID` holds a record; `locore:ids:{COLLECTION}`, a sorted set in which all
scores are 0, lists the ids in order; `locore:expiry:{COLLECTION}` has those that expire, by time;
`locore:sizes:{COLLECTION}` has the lengths of locals and of globals, `128 512`, 0 for globals that
have not come yet. The sizes hold while an image that has not expired is listed: those of a
collection without images count no more. `locore:claim:{COLLECTION}` is the cluster's own
(cluster.py), of the same form. `locore:version:{COLLECTION}` has the time of the last change of its
images. `locore:thumbnail:COLLECTION|ID` holds a thumbnail (thumbnails.py), and
`locore:thumbnails:{COLLECTION}`, a hash, the bytes of each by id and of all. `locore:trial` never
holds anything.

All these are keys of a collection's first *generation*: its images from one emptying to the next. A
later one has a token, which is never used again, in its keys: `locore:image:COLLECTION|TOKEN|ID`,
`locore:ids:{COLLECTION}|TOKEN`. `locore:name:{NAME}`, a hash, says what a name stands for:
`generation` is the token of the one that counts, none for the first; `made` is there while there
is such a collection; `alias` is the collection that the name is an alias of, and `intent` its entry
there. `locore:aliased:{COLLECTION}` has the aliases that point here, or are about to, by intent
(names.py). `locore:dropped:{COLLECTION}` has the tokens of generations that are over, by time, and
`locore:emptied` their collections; sweeper.py removes them, one service at a time
(`locore:sweeper`). `locore:collections` and `locore:aliases` list names, perhaps some that are none
any more. `locore:searched` says that collections from before there were names are listed too.

In a cluster the records of a collection so lie in all slots, and the rest in one: neither a name
nor an id may have braces or a bar in it.
"""

from __future__ import annotations

COLLECTIONS, ALIASES = "locore:collections", "locore:aliases"
EMPTIED, SWEEPER = "locore:emptied", "locore:sweeper"
SEARCHED = "locore:searched"
IDS = "locore:ids:"


def generation_of(collection: str, token: str) -> str:
    """The name of a generation: `COLLECTION` for the first, then `COLLECTION|TOKEN`."""
    return f"{collection}|{token}" if token else collection


def collection_of(generation: str) -> str:
    return generation.partition("|")[0]


def token_of(generation: str) -> str:
    return generation.partition("|")[2]


def image_key(generation: str, image_id: str) -> str:
    return f"locore:image:{generation}|{image_id}"


def generation_keys(generation: str) -> tuple[str, str, str, str, str]:
    """The keys of a generation's ids, their times of expiry, its sizes and a claim to them, and of
    its collection's name: all in one slot."""
    collection, bar, token = generation.partition("|")
    ids, expiry, sizes, claim = (
        f"locore:{kind}:{{{collection}}}{bar}{token}"
        for kind in ("ids", "expiry", "sizes", "claim")
    )
    return ids, expiry, sizes, claim, name_key(collection)


def thumbnail_key(generation: str, image_id: str) -> str:
    return f"locore:thumbnail:{generation}|{image_id}"


def change_keys(generation: str) -> tuple[str, str]:
    """The keys of the bytes of thumbnails, and of the time of the last change, in the slot of
    `generation_keys`."""
    collection, bar, token = generation.partition("|")
    thumbnails, version = (
        f"locore:{kind}:{{{collection}}}{bar}{token}" for kind in ("thumbnails", "version")
    )
    return thumbnails, version


def name_key(name: str) -> str:
    return f"locore:name:{{{name}}}"


def aliased_key(collection: str) -> str:
    return f"locore:aliased:{{{collection}}}"


def dropped_key(collection: str) -> str:
    return f"locore:dropped:{{{collection}}}"
