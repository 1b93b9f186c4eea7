"""What is said to the store: keys, commands, and scripts that run as one step.

Keys: `locore:image:COLLECTION|ID` holds a record; `locore:ids:{COLLECTION}`, a sorted set in which
all scores are 0, lists the ids in order; `locore:expiry:{COLLECTION}` has those that expire, by
time; `locore:sizes:{COLLECTION}` has the lengths of locals and of globals, `128 512`, 0 for globals
that have not come yet. The sizes hold while an image that has not expired is listed: those of an
emptied collection count no more, whoever emptied it. `locore:version:{COLLECTION}` has the time of
the last change of its images. `locore:claim:{COLLECTION}` is the cluster's own (cluster.py), of the
same form as the sizes. Thumbnails have keys of their own (thumbnails.py):
`locore:thumbnail:COLLECTION|ID`, and `locore:thumbnails:{COLLECTION}`, a hash of their bytes by id
and in all. `locore:trial` never holds anything.

In a cluster the records of a collection so lie in all slots, and the rest in one: neither a
collection nor an id may have braces or a bar in its name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from model.descriptors import DescriptorSizes

Command = tuple[str | bytes | int, ...]

EXPIRED_AT_ONCE = 1000
_CLAIM_SECONDS = 30
"""Longer than any operation of the store."""

# By the store's own clock: those of replicas differ. To the microsecond: an id is on the list of
# those that expire for as long as its record is there.
_NOW = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
"""

# Of KEYS[5], the bytes of thumbnails; the field of the sum has no name, as no id has.
_COUNT_THUMBNAIL = """
local function count_thumbnail(id, bytes)
    local before = tonumber(redis.call('HGET', KEYS[5], id) or 0)
    if bytes > 0 then
        redis.call('HSET', KEYS[5], id, bytes)
    elseif before > 0 then
        redis.call('HDEL', KEYS[5], id)
    end
    if bytes ~= before then
        redis.call('HINCRBY', KEYS[5], '', bytes - before)
    end
end
"""

_FORGET = (
    _NOW
    + _COUNT_THUMBNAIL
    + """
local function forget(ids)
    for _, id in ipairs(ids) do
        redis.call('ZREM', KEYS[1], id)
        redis.call('ZREM', KEYS[2], id)
        count_thumbnail(id, 0)
    end
    if redis.call('EXISTS', KEYS[1]) == 0 then
        redis.call('DEL', KEYS[3], KEYS[4], KEYS[5], KEYS[6])
    elseif #ids > 0 then
        redis.call('SET', KEYS[6], now)
    end
end
"""
)

_EXPIRE = (
    _FORGET
    + f"""
local gone = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, {EXPIRED_AT_ONCE})
if #gone > 0 then
    forget(gone)
end
return #gone
"""
)

_UNLIST = _FORGET + "forget(ARGV)"

_DELETE = _UNLIST + "\nredis.call('DEL', KEYS[8])\nreturn redis.call('DEL', KEYS[7])"

# ARGV: the lengths of locals and of globals. Returns the collection's sizes where they differ, and
# nothing where its images are from before there were sizes.
_CHECK = (
    _NOW
    + """
local global = ARGV[2]
local function fits(known)
    local its_local, its_global = string.match(known, '(%d+) (%d+)')
    if global == '0' then
        global = its_global
    end
    return its_local == ARGV[1] and (its_global == '0' or its_global == global)
end
local fixed
if redis.call('ZCARD', KEYS[1]) > redis.call('ZCOUNT', KEYS[2], '-inf', now) then
    fixed = redis.call('GET', KEYS[3])
    if not fixed then
        return ''
    end
    if not fits(fixed) then
        return fixed
    end
end
"""
)

# ARGV further: seconds to live or nothing, the number of ids, the ids, and their records where
# KEYS has the images too. Returns how many were not listed before. Only the first write of a script
# is refused by a full store: it must be one that takes memory.
_LIST = (
    _CHECK
    + """
local sizes = ARGV[1] .. ' ' .. global
if sizes ~= fixed then
    redis.call('SET', KEYS[3], sizes)
end
local expiry = ARGV[3] ~= '' and now + ARGV[3]
local added = 0
for place = 5, 4 + ARGV[4] do
    added = added + redis.call('ZADD', KEYS[1], 0, ARGV[place])
    if expiry then
        redis.call('ZADD', KEYS[2], expiry, ARGV[place])
    else
        redis.call('ZREM', KEYS[2], ARGV[place])
    end
end
for place = 7, #KEYS do
    local record = ARGV[place - 2 + ARGV[4]]
    if expiry then
        redis.call('SET', KEYS[place], record, 'EX', ARGV[3])
    else
        redis.call('SET', KEYS[place], record)
    end
end
redis.call('SET', KEYS[6], now)
return added
"""
)

_CLAIM = (
    _CHECK
    + f"""
local claim = redis.call('GET', KEYS[4])
if claim and not fits(claim) then
    return claim
end
redis.call('SET', KEYS[4], ARGV[1] .. ' ' .. global, 'EX', {_CLAIM_SECONDS})
return 0
"""
)

# ARGV: our record's header, the record from before or nothing, its milliseconds to live or -1.
# Where somebody else has changed the image since, it stays as it is. After the DEL, which a full
# node takes too, it does not refuse the SET: no script is broken off in the midst of its writes.
_PUT_BACK = """
if redis.call('GETRANGE', KEYS[1], 0, #ARGV[1] - 1) ~= ARGV[1] then
    return 0
end
redis.call('DEL', KEYS[1])
if ARGV[2] ~= '' then
    redis.call('SET', KEYS[1], ARGV[2])
    if ARGV[3] ~= '-1' then
        redis.call('PEXPIRE', KEYS[1], ARGV[3])
    end
end
return 1
"""


# Of an image that was deleted meanwhile, nothing is noted.
_COUNT = (
    _COUNT_THUMBNAIL
    + """
for place = 1, #ARGV, 2 do
    local listed = redis.call('ZSCORE', KEYS[1], ARGV[place])
    count_thumbnail(ARGV[place], listed and tonumber(ARGV[place + 1]) or 0)
end
return tonumber(redis.call('HGET', KEYS[5], '') or 0)
"""
)


def image_key(collection: str, image_id: str) -> str:
    return f"locore:image:{collection}|{image_id}"


class CollectionKeys(NamedTuple):
    """In the order in which scripts have them, all in one slot."""

    ids: str
    expiry: str
    sizes: str
    claim: str
    thumbnails: str
    version: str


def collection_keys(collection: str) -> CollectionKeys:
    return CollectionKeys(*(f"locore:{name}:{{{collection}}}" for name in CollectionKeys._fields))


def thumbnail_key(collection: str, image_id: str) -> str:
    return f"locore:thumbnail:{collection}|{image_id}"


def trial() -> Command:
    """Runs a script that writes to a key of ours, and changes nothing."""
    return _script("return redis.call('DEL', KEYS[1])", ["locore:trial"])


def expire(collection: str) -> Command:
    """Take ids of expired images off the lists, at most EXPIRED_AT_ONCE; answers how many."""
    return _script(_EXPIRE, collection_keys(collection))


def count_expiring(collection: str) -> Command:
    """How many images of a collection go by themselves at some time."""
    return ("ZCARD", collection_keys(collection).expiry)


def put(
    collection: str, records: Mapping[str, bytes], sizes: DescriptorSizes, ttl_seconds: int | None
) -> Command:
    """Store and list records. Answers as `list_ids`."""
    images = [image_key(collection, image_id) for image_id in records]
    keys = [*collection_keys(collection), *images]
    ttl = "" if ttl_seconds is None else ttl_seconds
    return _script(_LIST, keys, *_numbers(sizes), ttl, len(records), *records, *records.values())


def list_ids(
    collection: str, ids: Sequence[str], sizes: DescriptorSizes, ttl_seconds: int | None
) -> Command:
    """Put ids on a collection's lists and fix its sizes. Answers how many were not listed before,
    or what `claim` answers where sizes do not fit."""
    ttl = "" if ttl_seconds is None else ttl_seconds
    keys = collection_keys(collection)
    return _script(_LIST, keys, *_numbers(sizes), ttl, len(ids), *ids)


def claim(collection: str, sizes: DescriptorSizes) -> Command:
    """Keep other sizes away for as long as a registration takes. Answers 0; or the collection's
    sizes, where they differ, for `sizes_from`; or nothing, where images are listed that are from
    before there were sizes."""
    return _script(_CLAIM, collection_keys(collection), *_numbers(sizes))


def unlist(collection: str, ids: Iterable[str]) -> Command:
    return _script(_UNLIST, collection_keys(collection), *ids)


def delete(collection: str, image_id: str) -> Command:
    """Answers 0 where there was no such image."""
    of_image = image_key(collection, image_id), thumbnail_key(collection, image_id)
    return _script(_DELETE, [*collection_keys(collection), *of_image], image_id)


def count_thumbnails(collection: str, sizes: Mapping[str, int]) -> Command:
    """Note the bytes of thumbnails by id, 0 where there is none now; answers the collection's
    sum."""
    pairs = [part for pair in sizes.items() for part in pair]
    return _script(_COUNT, collection_keys(collection), *pairs)


def put_back(key: str, header: bytes, before: bytes, milliseconds: int) -> Command:
    """The record from `before` in the place of that with our `header`; answers 0 where another is
    there by now."""
    return _script(_PUT_BACK, [key], header, before, milliseconds)


def set_record(key: str, record: bytes, ttl_seconds: int | None) -> Command:
    expiry: Command = () if ttl_seconds is None else ("EX", ttl_seconds)
    return ("SET", key, record, *expiry)


def adopt_sizes(collection: str, sizes: DescriptorSizes) -> Command:
    """Give a collection sizes unless it has some."""
    return ("SET", collection_keys(collection).sizes, " ".join(map(str, _numbers(sizes))), "NX")


def sizes_from(text: bytes) -> DescriptorSizes:
    local_dim, global_dim = map(int, text.split())
    return DescriptorSizes(local_dim, global_dim or None)


def _numbers(sizes: DescriptorSizes) -> tuple[int, int]:
    return sizes.local_dim, sizes.global_dim or 0


def _script(script: str, keys: Sequence[str], *arguments: str | bytes | int) -> Command:
    # Not by its digest: a replica that becomes primary does not know a script that it never ran.
    return ("EVAL", script, len(keys), *keys, *arguments)
