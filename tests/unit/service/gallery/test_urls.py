"""What the URL of a store says, and which are refused."""

from __future__ import annotations

from typing import Any

import pytest
from redis.asyncio.connection import Connection, SSLConnection
from redis.asyncio.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection

from service.gallery.store_connection import connect_store
from service.gallery.urls import ClusterUrl, SentinelUrl, SingleUrl, parse_store_url


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "redis://:secret@10.0.0.1:6380/3?socket_timeout=2",
        "rediss://user:secret@example.org?ssl_ca_certs=/etc/ca.pem",
        "unix:///run/valkey.sock?db=1",
    ],
)
def test_one_redis_is_left_to_redis_py(url: str) -> None:
    assert parse_store_url(url) == SingleUrl(url)


def test_sentinels_have_addresses_a_service_and_perhaps_a_database() -> None:
    url = parse_store_url("redis+sentinel://one:26380,two,[::1]:5/gallery")
    assert url == SentinelUrl(
        (("one", 26380), ("two", 26379), ("::1", 5)),
        "gallery",
        {},
        {"username": None, "password": None},
    )
    url = parse_store_url("redis+sentinel://one/my%20gallery/2")
    assert isinstance(url, SentinelUrl)
    assert (url.service, url.options) == ("my gallery", {"db": 2})


def test_the_password_is_the_primarys_and_the_sentinels_have_their_own() -> None:
    url = parse_store_url(
        "rediss+sentinel://u%40x:p%2Cw@one,two/gallery"
        "?sentinel_password=a%26b&sentinel_username=s&ssl_ca_certs=/ca.pem&socket_timeout=2.5"
    )
    assert isinstance(url, SentinelUrl)
    assert url.nodes == (("one", 26379), ("two", 26379))
    tls = {"ssl": True, "ssl_ca_certs": "/ca.pem"}
    assert url.options == {"username": "u@x", "password": "p,w", "socket_timeout": 2.5, **tls}
    assert url.sentinel_options == {"username": "s", "password": "a&b", **tls}


def test_a_cluster_has_nodes() -> None:
    assert parse_store_url("redis+cluster://a:7000,b") == ClusterUrl((("a", 7000), ("b", 6379)), {})
    url = parse_store_url("rediss+cluster://:s@a:7000/0?ssl_check_hostname=no&max_connections=7")
    assert url == ClusterUrl(
        (("a", 7000),),
        {"password": "s", "ssl": True, "ssl_check_hostname": False, "max_connections": 7},
    )


def client_of(url: str) -> Any:
    return connect_store(url)._client


def test_transport_layer_security_is_for_all_servers() -> None:
    plain, secure = (
        client_of(f"{scheme}+sentinel://one/gallery") for scheme in ("redis", "rediss")
    )
    assert plain.connection_pool.connection_class is SentinelManagedConnection
    assert secure.connection_pool.connection_class is SentinelManagedSSLConnection
    sentinels = connect_store("rediss+sentinel://one/gallery")._sentinels
    assert sentinels is not None
    assert sentinels.sentinels[0].connection_pool.connection_class is SSLConnection
    for scheme, expected in (("redis", Connection), ("rediss", SSLConnection)):
        cluster = client_of(f"{scheme}+cluster://one:7000")
        (node,) = cluster.nodes_manager.startup_nodes.values()
        assert node.connection_class is expected


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis://a:1,redis://b:2", "several nodes: write redis"),
        ("redis://a,b:2", "several nodes"),
        ("redis://a:many", "Port"),
        ("redis://a?colour=red", "no such option: colour"),
        ("redis://:pass#word@a", "%23"),
        ("redis+sentinel://a,b", "/SERVICE"),
        ("redis+sentinel:///gallery", "not HOST:PORT"),
        ("redis+sentinel://a:1,,b/gallery", "'' is not HOST:PORT"),
        ("redis+sentinel://a/gallery/many", "/SERVICE"),
        ("redis+sentinel://a/gallery/1/2", "/SERVICE"),
        ("redis+sentinel://a:99999/gallery", "'a:99999' is not HOST:PORT"),
        ("redis+cluster://a/1", "no databases"),
        ("redis+cluster://a?db=1", "no databases"),
        ("redis+cluster://a?sentinel_password=x", "no such option: sentinel_password"),
        ("redis+cluster://a?socket_timeout=soon", "socket_timeout"),
        ("redis://a?max_connections=0", "max_connections must be a number above 0"),
        ("redis+cluster://a?max_connections=few", "max_connections must be a number above 0"),
        ("redis+cluster://", "not HOST:PORT"),
        ("unix+cluster:///run/x", "is not a store"),
        ("redis+other://a", "is not a store"),
        ("http://a", "redis://"),
        ("redis://:hunter/2@a", "%2F"),
        ("redis+cluster://:hunter?2@a", "%3F"),
        ("redis://a?ssl_ca_certs=/x", "rediss://"),
        ("unix:///x?ssl_ca_certs=/x", "rediss://"),
    ],
)
def test_a_bad_url_is_refused_and_why_is_said(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why.replace("+", r"\+")) as caught:
        parse_store_url(url)
    assert "word" not in str(caught.value).replace("password", "")
