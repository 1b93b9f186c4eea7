"""The scripts that the store of names runs, each atomically and in one slot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from service.gallery.commands import NOW, OVER, Command, script
from service.gallery.keys import (
    SWEEPER,
    aliased_key,
    change_keys,
    collection_of,
    dropped_key,
    generation_keys,
    name_key,
    token_of,
)

SAMPLE = 32
"""Records in the sample that estimates the bytes of a collection."""

UNKNOWN, IN_USE = -2, -3
INTENT_SECONDS = 30
"""After this time an alias that does not point here will not do so: no operation of the store takes
that long."""

_LEASE_SECONDS = 60

# What a name may be of a collection that the script is about: ARGV[1] is the token of the
# generation that was looked up. A gallery from before there were names has ids alone.
_LOOK = f"""
local name = redis.call('HMGET', KEYS[5], 'alias', 'generation', 'made')
if name[1] or (name[2] or '') ~= ARGV[1] then
    return {OVER}
end
if not name[3] and redis.call('EXISTS', KEYS[1]) == 0 then
    return {UNKNOWN}
end
"""

# ARGV: the token; the next token; 1 where the collection is dropped; the intents whose aliases are
# known to point elsewhere. A full store takes writes after one that takes no memory.
_END = (
    NOW
    + _LOOK
    + f"""
if ARGV[3] == '1' then
    local elsewhere = {{}}
    for place = 4, #ARGV do
        elsewhere[ARGV[place]] = true
    end
    for _, intent in ipairs(redis.call('HKEYS', KEYS[7])) do
        local made = string.match(intent, '^[%d.]+')
        if not elsewhere[intent] or now - made < {INTENT_SECONDS} then
            return {IN_USE}
        end
    end
end
local count = redis.call('ZCARD', KEYS[1]) - redis.call('ZCOUNT', KEYS[2], '-inf', now)
redis.call('DEL', KEYS[4])
if ARGV[3] == '1' then
    redis.call('DEL', KEYS[5], KEYS[7])
else
    redis.call('HSET', KEYS[5], 'made', 1)
end
redis.call('HSET', KEYS[5], 'generation', ARGV[2])
redis.call('ZADD', KEYS[6], now, ARGV[1])
return count
"""
)

_INTEND = (
    NOW
    + _LOOK
    + """
local intent = string.format('%.6f %s', now, ARGV[3])
redis.call('HSET', KEYS[5], 'made', 1)
redis.call('HSET', KEYS[6], intent, ARGV[2])
return intent
"""
)

# KEYS: the alias's name, and the ids that a collection of that name from before there were names
# has.
_POINT = """
local name = redis.call('HMGET', KEYS[1], 'made', 'generation', 'alias', 'intent')
if name[1] or (not name[2] and redis.call('EXISTS', KEYS[2]) == 1) then
    return 0
end
redis.call('HSET', KEYS[1], 'alias', ARGV[1], 'intent', ARGV[2])
return {name[3] or '', name[4] or ''}
"""

_UNPOINT = """
local name = redis.call('HMGET', KEYS[1], 'alias', 'intent')
redis.call('HDEL', KEYS[1], 'alias', 'intent')
return {name[1] or '', name[2] or ''}
"""

# Also where the store is full.
_NOTE = (
    NOW
    + """
redis.call('ZREM', KEYS[1], '')
for place = 2, #ARGV do
    redis.call('ZADD', KEYS[1], ARGV[1] == '1' and now or 0, ARGV[place])
end
"""
)

_SUMMARY = (
    NOW
    + f"""
local all = redis.call('ZCARD', KEYS[1])
local shown = math.min(all, {SAMPLE})
local summary = {{
    all - redis.call('ZCOUNT', KEYS[2], '-inf', now), redis.call('GET', KEYS[3]) or ''
}}
for place = 0, shown - 1 do
    local rank = math.floor((place + 0.5) * all / shown)
    table.insert(summary, redis.call('ZRANGE', KEYS[1], rank, rank)[1])
end
return summary
"""
)

_LEASE = f"""
if redis.call('EXISTS', KEYS[1]) == 1 then
    return 0
end
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], 1, 'EX', {_LEASE_SECONDS})
return 1
"""

_DUE = (
    NOW
    + """
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[1], 'LIMIT', 0, ARGV[2])
"""
)

_SWEPT = """
redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[7], KEYS[8])
redis.call('ZREM', KEYS[6], ARGV[1])
return redis.call('ZCARD', KEYS[6])
"""

_UNNOTE = (
    NOW
    + """
local at = redis.call('ZSCORE', KEYS[1], ARGV[2])
if at and at + ARGV[1] <= now then
    redis.call('ZREM', KEYS[1], ARGV[2])
end
"""
)


def look(name: str) -> Command:
    """Answers what it is an alias of, the token of its generation, and whether it is made."""
    return ("HMGET", name_key(name), "alias", "generation", "made")


def end(generation: str, token: str, *, drop: bool, elsewhere: Iterable[bytes]) -> Command:
    """Empty a collection, or drop it. Answers how many images it had, or OVER, UNKNOWN, IN_USE."""
    collection = collection_of(generation)
    keys = [*generation_keys(generation), dropped_key(collection), aliased_key(collection)]
    return script(_END, keys, token_of(generation), token, int(drop), *elsewhere)


def intend(generation: str, alias: str, token: str) -> Command:
    """Protect a collection from being dropped while an alias is about to point there. Answers the
    intent, or OVER, UNKNOWN."""
    keys = [*generation_keys(generation), aliased_key(collection_of(generation))]
    return script(_INTEND, keys, token_of(generation), alias, token)


def point(alias: str, collection: str, intent: bytes) -> Command:
    """Answers the collection and the intent from before, or 0 if a collection has the name."""
    ids, *_ = generation_keys(alias)
    return script(_POINT, [name_key(alias), ids], collection, intent)


def unpoint(alias: str) -> Command:
    """Answers the collection and the intent from before."""
    return script(_UNPOINT, [name_key(alias)])


def intents(collection: str) -> Command:
    """Answers the alias of each."""
    return ("HGETALL", aliased_key(collection))


def forget(collection: str, intent: bytes) -> Command:
    return ("HDEL", aliased_key(collection), intent)


def note(key: str, names: Sequence[str], *, timed: bool = False) -> Command:
    """Put names on a list; on a list of ended generations with the time."""
    return script(_NOTE, [key], int(timed), *names)


def names_after(key: str, after: str | None, limit: int) -> Command:
    start = "-" if after is None else f"({after}"
    return ("ZRANGEBYLEX", key, start, "+", "LIMIT", 0, limit)


def summary(generation: str) -> Command:
    """Answers the number of images, the sizes or nothing, and up to SAMPLE of the ids."""
    return script(_SUMMARY, generation_keys(generation))


def lease() -> Command:
    """Answers 0 if another service has it."""
    return script(_LEASE, [SWEEPER])


def keep_lease() -> Command:
    return ("EXPIRE", SWEEPER, _LEASE_SECONDS)


def due(key: str, seconds: float, limit: int) -> Command:
    """Names that have been on a list for this many seconds."""
    return script(_DUE, [key], str(seconds), limit)


def swept(generation: str) -> Command:
    """Remove a generation. Answers how many of the collection remain to be swept."""
    dropped = dropped_key(collection_of(generation))
    keys = [*generation_keys(generation), dropped, *change_keys(generation)]
    return script(_SWEPT, keys, token_of(generation))


def unnote(key: str, name: str, seconds: float) -> Command:
    """Remove a name that has been on a list for this many seconds."""
    return script(_UNNOTE, [key], str(seconds), name)
