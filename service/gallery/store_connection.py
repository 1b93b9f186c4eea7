"""Makes the store for a URL. It connects at first use, and finds its servers again after a
failover."""

from __future__ import annotations

from typing import Any

import redis.asyncio as redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from service.gallery.cluster import ClusterStore
from service.gallery.session import DEFAULT_CONNECTIONS
from service.gallery.store import GalleryStore
from service.gallery.urls import ClusterUrl, SentinelUrl, SingleUrl, parse_store_url

# The store retries by itself.
_ONCE = Retry(NoBackoff(), 0)
_LIMITS: dict[str, Any] = {
    # The images of a shortlist come in a few reads.
    "socket_read_size": 1 << 18,
    "socket_timeout": 5.0,
    "socket_connect_timeout": 2.0,
    "health_check_interval": 15,
    "max_connections": DEFAULT_CONNECTIONS,
    "retry": _ONCE,
}
# A request waits while the Sentinels are asked, one after another.
_SENTINEL_LIMITS: dict[str, Any] = {
    "socket_timeout": 1.0,
    "socket_connect_timeout": 0.5,
    "retry": _ONCE,
}


def connect_store(url: str) -> GalleryStore:
    """Raises ValueError for a URL that cannot be one."""
    match parse_store_url(url):
        case SingleUrl():
            client = redis.Redis.from_url(url, **_LIMITS)
            return GalleryStore(client, connections=client.connection_pool.max_connections)
        case SentinelUrl(nodes, service, options, sentinel_options):
            sentinels = Sentinel(  # type: ignore[no-untyped-call]
                nodes,
                sentinel_kwargs=_SENTINEL_LIMITS | sentinel_options,
            )
            options = _LIMITS | options
            primary = sentinels.master_for(service, **options)
            return GalleryStore(primary, sentinels, options["max_connections"])
        case ClusterUrl(nodes, options):
            options = _LIMITS | options
            cluster: RedisCluster = RedisCluster(
                startup_nodes=[ClusterNode(host, port) for host, port in nodes],
                **options,
                # Nor may it close other requests' connections to read the slots again.
                reinitialize_steps=0,
            )
            return ClusterStore(cluster, nodes, options["max_connections"])
