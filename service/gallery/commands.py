"""The commands and scripts that the store of images runs, each atomically.

The keys are those of keys.py. A script that changes lists takes first the keys of a generation, in
the order of `generation_keys` and `change_keys`, then those of records.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from model.descriptors import DescriptorSizes
from service.gallery.keys import (
    COLLECTIONS,
    change_keys,
    collection_of,
    generation_keys,
    image_key,
    thumbnail_key,
    token_of,
)

Command = tuple[str | bytes | int, ...]

EXPIRED_AT_ONCE = 1000
OVER = -1
"""The answer if the generation is not the current one, or the name is an alias."""
_CLAIM_SECONDS = 30
"""Longer than any operation of the store."""

NOW = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
"""
"""By the store's own clock: those of replicas differ. To the microsecond: an id is on the list of
those that expire for as long as its record is there."""

# The field of the sum has no name, as no id has.
_COUNT_THUMBNAIL = """
local function count_thumbnail(id, bytes)
    local before = tonumber(redis.call('HGET', KEYS[6], id) or 0)
    if bytes > 0 then
        redis.call('HSET', KEYS[6], id, bytes)
    elseif before > 0 then
        redis.call('HDEL', KEYS[6], id)
    end
    if bytes ~= before then
        redis.call('HINCRBY', KEYS[6], '', bytes - before)
    end
end
"""

_FORGET = (
    NOW
    + _COUNT_THUMBNAIL
    + """
local function forget(ids)
    for _, id in ipairs(ids) do
        redis.call('ZREM', KEYS[1], id)
        redis.call('ZREM', KEYS[2], id)
        count_thumbnail(id, 0)
    end
    if redis.call('EXISTS', KEYS[1]) == 0 then
        redis.call('DEL', KEYS[3], KEYS[4], KEYS[6], KEYS[7])
    elseif #ids > 0 then
        redis.call('SET', KEYS[7], now)
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

_DELETE = _UNLIST + "\nredis.call('DEL', KEYS[9])\nreturn redis.call('DEL', KEYS[8])"

# ARGV: ids and the bytes of their thumbnails. Of an image that was deleted meanwhile, and of a
# generation that was swept, nothing is noted.
_NOTE_THUMBNAILS = (
    _COUNT_THUMBNAIL
    + """
for place = 1, #ARGV, 2 do
    local listed = redis.call('ZSCORE', KEYS[1], ARGV[place])
    count_thumbnail(ARGV[place], listed and tonumber(ARGV[place + 1]) or 0)
end
return tonumber(redis.call('HGET', KEYS[6], '') or 0)
"""
)

# ARGV: the lengths of locals and of globals, the generation's token. Returns OVER, or the
# collection's sizes where they differ, and nothing if its images are from before there were
# sizes.
_CHECK = (
    NOW
    + f"""
local name = redis.call('HMGET', KEYS[5], 'alias', 'generation', 'made')
if name[1] or (name[2] or '') ~= ARGV[3] then
    return {OVER}
end
"""
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
if not name[3] then
    redis.call('HSET', KEYS[5], 'made', 1)
end
local sizes = ARGV[1] .. ' ' .. global
if sizes ~= fixed then
    redis.call('SET', KEYS[3], sizes)
end
local expiry = ARGV[4] ~= '' and now + ARGV[4]
local added = 0
for place = 6, 5 + ARGV[5] do
    added = added + redis.call('ZADD', KEYS[1], 0, ARGV[place])
    if expiry then
        redis.call('ZADD', KEYS[2], expiry, ARGV[place])
    else
        redis.call('ZREM', KEYS[2], ARGV[place])
    end
end
for place = 8, #KEYS do
    local record = ARGV[place - 2 + ARGV[5]]
    if expiry then
        redis.call('SET', KEYS[place], record, 'EX', ARGV[4])
    else
        redis.call('SET', KEYS[place], record)
    end
end
redis.call('SET', KEYS[7], now)
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

# ARGV: how many bytes. One command for all: the client takes long over each.
_BEGINNINGS = """
local beginnings = {}
for place, key in ipairs(KEYS) do
    beginnings[place] = redis.call('GETRANGE', key, 0, ARGV[1] - 1)
end
return beginnings
"""

# ARGV: our record's header, the record from before or nothing, its milliseconds to live or -1. An
# image that another client has changed since stays as it is. After the DEL, which a full node takes
# too, it does not refuse the SET: no script stops in the middle of its writes.
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


def trial() -> Command:
    """Runs a script that writes to one of our keys and changes nothing."""
    return script("return redis.call('DEL', KEYS[1])", ["locore:trial"])


def expire(generation: str) -> Command:
    """Take ids of expired images off the lists, at most EXPIRED_AT_ONCE. Answers how many."""
    return script(_EXPIRE, _list_keys(generation))


def count_expiring(generation: str) -> Command:
    """How many images of a generation have a time to live."""
    _, expiry, _, _, _ = generation_keys(generation)
    return ("ZCARD", expiry)


def put(
    generation: str, records: Mapping[str, bytes], sizes: DescriptorSizes, ttl_seconds: int | None
) -> Command:
    """Store and list records. Answers as `list_ids`."""
    images = [image_key(generation, image_id) for image_id in records]
    keys = [*_list_keys(generation), *images]
    ttl = "" if ttl_seconds is None else ttl_seconds
    checks = _checks(generation, sizes)
    return script(_LIST, keys, *checks, ttl, len(records), *records, *records.values())


def list_ids(
    generation: str, ids: Sequence[str], sizes: DescriptorSizes, ttl_seconds: int | None
) -> Command:
    """Put ids on a collection's lists and fix its sizes. Answers how many were not listed before,
    or what `claim` answers where sizes do not fit."""
    ttl = "" if ttl_seconds is None else ttl_seconds
    keys = _list_keys(generation)
    return script(_LIST, keys, *_checks(generation, sizes), ttl, len(ids), *ids)


def claim(generation: str, sizes: DescriptorSizes) -> Command:
    """Reserve the sizes during a registration. Answers 0; OVER; the collection's sizes if they
    differ, for `sizes_from`; or nothing if the listed images are older than sizes."""
    return script(_CLAIM, generation_keys(generation), *_checks(generation, sizes))


def note_collection(generation: str) -> Command:
    return ("ZADD", COLLECTIONS, 0, collection_of(generation))


def unlist(generation: str, ids: Iterable[str]) -> Command:
    return script(_UNLIST, _list_keys(generation), *ids)


def delete(generation: str, image_id: str) -> Command:
    """Answers 0 if there was no such image."""
    of_image = image_key(generation, image_id), thumbnail_key(generation, image_id)
    return script(_DELETE, [*_list_keys(generation), *of_image], image_id)


def note_thumbnails(generation: str, sizes: Mapping[str, int]) -> Command:
    """Note the bytes of thumbnails by id, 0 if there is none now. Answers the sum of all."""
    pairs = [part for pair in sizes.items() for part in pair]
    return script(_NOTE_THUMBNAILS, _list_keys(generation), *pairs)


def put_back(key: str, header: bytes, previous: bytes, milliseconds: int) -> Command:
    """Put the `previous` record back in the place of that with our `header`; answers 0 if there
    is another one."""
    return script(_PUT_BACK, [key], header, previous, milliseconds)


def beginnings(keys: Sequence[str], count: int) -> Command:
    """Answers the first `count` bytes of each key's value, none of one that is not there."""
    return script(_BEGINNINGS, keys, count)


def set_record(key: str, record: bytes, ttl_seconds: int | None) -> Command:
    expiry: Command = () if ttl_seconds is None else ("EX", ttl_seconds)
    return ("SET", key, record, *expiry)


def adopt_sizes(generation: str, sizes: DescriptorSizes) -> Command:
    """Give sizes to a collection that has none."""
    _, _, key, _, _ = generation_keys(generation)
    return ("SET", key, " ".join(map(str, _numbers(sizes))), "NX")


def sizes_from(text: bytes) -> DescriptorSizes:
    local_dim, global_dim = map(int, text.split())
    return DescriptorSizes(local_dim, global_dim or None)


def _list_keys(generation: str) -> list[str]:
    return [*generation_keys(generation), *change_keys(generation)]


def _checks(generation: str, sizes: DescriptorSizes) -> tuple[int, int, str]:
    return *_numbers(sizes), token_of(generation)


def _numbers(sizes: DescriptorSizes) -> tuple[int, int]:
    return sizes.local_dim, sizes.global_dim or 0


def script(text: str, keys: Sequence[str], *arguments: str | bytes | int) -> Command:
    # Not by digest: a replica that becomes primary does not know scripts that it has not run.
    return ("EVAL", text, len(keys), *keys, *arguments)
