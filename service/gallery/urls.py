"""Parses a store's URL. Pure: connects to nothing.

    redis://HOST:PORT/DB, rediss://…, unix://PATH            one Redis, as redis-py reads them
    redis+sentinel://HOST:PORT,HOST:PORT/SERVICE[/DB]        the primary that Sentinels name
    redis+cluster://HOST:PORT,HOST:PORT                    a cluster; one node is enough

`rediss+…` is TLS, also to the Sentinels. `USER:PASSWORD@` and query parameters are written as in a
redis:// URL and are for the servers with the gallery; `sentinel_username` and `sentinel_password`
are for the Sentinels.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, parse_qs, unquote, urlencode, urlsplit

from redis.asyncio.connection import SSLConnection, parse_url

Node = tuple[str, int]

_SENTINEL_PORT, _PORT = 26379, 6379
_OPTIONS = frozenset(
    {
        *("client_name", "db", "health_check_interval", "max_connections", "protocol"),
        *("password", "socket_connect_timeout", "socket_keepalive", "socket_timeout", "username"),
        *("ssl_ca_certs", "ssl_ca_data", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname"),
        *("ssl_ciphers", "ssl_keyfile", "ssl_min_version"),
    }
)
# Beside these, by the kind of store.
_MORE_OPTIONS = {
    "": frozenset(("retry_on_timeout", "ssl_ca_path", "ssl_password")),
    "sentinel": frozenset(
        ("ssl_ca_path", "ssl_password", "sentinel_username", "sentinel_password")
    ),
    "cluster": frozenset[str](),
}


@dataclass(frozen=True)
class SingleUrl:
    url: str


@dataclass(frozen=True)
class SentinelUrl:
    """`options` are redis-py's, for the primary; `sentinel_options` for the Sentinels."""

    nodes: tuple[Node, ...]
    service: str
    options: dict[str, Any]
    sentinel_options: dict[str, Any]


@dataclass(frozen=True)
class ClusterUrl:
    nodes: tuple[Node, ...]
    options: dict[str, Any]


def parse_store_url(url: str) -> SingleUrl | SentinelUrl | ClusterUrl:
    """Raises ValueError; the message contains no password."""
    parts = _split(url)
    transport, _, kind = parts.scheme.partition("+")
    if parts.fragment:
        raise ValueError("a `#` in a password is written %23")
    transports = ("redis", "rediss") if kind else ("redis", "rediss", "unix")
    if kind not in _MORE_OPTIONS or transport not in transports:
        raise ValueError(
            f"{parts.scheme}:// is not a store; redis://, rediss://, unix://, redis+sentinel:// "
            "and redis+cluster:// are"
        )
    if "@" in parts.path + parts.query and kind + transport != "unix":
        raise ValueError("`/`, `?` and `@` in a password are written %2F, %3F and %40")
    if transport != "rediss" and "ssl_" in parts.query:
        raise ValueError("ssl_… is for rediss://")
    unknown = sorted(parse_qs(parts.query).keys() - _OPTIONS - _MORE_OPTIONS[kind])
    if unknown:
        raise ValueError(f"no such option: {unknown[0]}")
    connections = parse_qs(parts.query).get("max_connections", ["1"])[0]
    if not connections.isdecimal() or int(connections) < 1:
        raise ValueError("max_connections must be a number above 0")
    if not kind:
        if "," in parts.netloc.rpartition("@")[2]:
            raise ValueError(
                "several nodes: write redis+sentinel://HOST:PORT,HOST:PORT/SERVICE "
                "or redis+cluster://HOST:PORT,HOST:PORT"
            )
        parse_url(url)
        return SingleUrl(url)
    return _sentinel(transport, parts) if kind == "sentinel" else _cluster(transport, parts)


def _split(url: str) -> SplitResult:
    """Like `urlsplit`, which in some Python versions refuses an IPv6 address behind another
    host."""
    scheme, slashes, rest = url.partition("//")
    hosts = re.split("[/?#]", rest, maxsplit=1)[0]
    return urlsplit(scheme + slashes + rest[len(hosts) :])._replace(netloc=hosts)


def _sentinel(transport: str, parts: SplitResult) -> SentinelUrl:
    service, *database = [unquote(part) for part in parts.path.strip("/").split("/")]
    if not service or len(database) > 1 or not all(part.isdecimal() for part in database):
        raise ValueError("wanted: redis+sentinel://HOST:PORT,HOST:PORT/SERVICE or …/SERVICE/DB")
    options = _options(transport, parts)
    if database:
        options["db"] = int(database[0])
    sentinel_options = {
        name: options.pop(f"sentinel_{name}", None) for name in ("username", "password")
    }
    sentinel_options |= {name: value for name, value in options.items() if name.startswith("ssl")}
    return SentinelUrl(_nodes(parts, _SENTINEL_PORT), service, options, sentinel_options)


def _cluster(transport: str, parts: SplitResult) -> ClusterUrl:
    options = _options(transport, parts)
    if parts.path.strip("/") not in ("", "0") or options.pop("db", 0):
        raise ValueError("a cluster has no databases: wanted redis+cluster://HOST:PORT,HOST:PORT")
    return ClusterUrl(_nodes(parts, _PORT), options)


def _options(transport: str, parts: SplitResult) -> dict[str, Any]:
    """The user, the password and the query parameters, each of its type."""
    user, _, _ = parts.netloc.rpartition("@")
    query = urlencode({name: values[0] for name, values in parse_qs(parts.query).items()})
    options: dict[str, Any] = dict(parse_url(f"{transport}://{user}{'@' if user else ''}?{query}"))
    if options.pop("connection_class", None) is SSLConnection:
        options["ssl"] = True
    return options


def _nodes(parts: SplitResult, default_port: int) -> tuple[Node, ...]:
    nodes = []
    for text in parts.netloc.rpartition("@")[2].split(","):
        try:
            node = urlsplit(f"//{text}")
            host, port = node.hostname, node.port or default_port
        except ValueError:
            host = None
        if not host:
            raise ValueError(f"{text!r} is not HOST:PORT")
        nodes.append((host, port))
    return tuple(nodes)
