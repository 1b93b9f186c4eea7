"""What clients take from the environment, and keys that cannot be sent."""

from __future__ import annotations

import asyncio

import pytest

from locore_client import AsyncClient, Client, InvalidRequestError, UnreachableError
from locore_client.proxies import proxy_for

PROXY = "http://user:hunter2@127.0.0.1:9"


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8000",
        "http://127.9.9.9",
        "http://localhost:8000",
        "http://LOCALHOST.",
        "http://a.localhost",
        "http://[::1]:8000",
        "http://[::ffff:127.0.0.1]",
        "https://127.0.0.1",
    ],
)
def test_this_machine_is_asked_straight(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    for name in ("HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "nonsense://")
    assert proxy_for(url) is None


@pytest.mark.parametrize(
    ("url", "environment", "proxy"),
    [
        ("http://shop", {"HTTP_PROXY": "http://p:1"}, "http://p:1"),
        ("http://shop", {"http_proxy": "p:1"}, "http://p:1"),
        ("http://shop", {"HTTPS_PROXY": "http://p:1"}, None),
        ("https://shop", {"ALL_PROXY": "https://p:1"}, "https://p:1"),
        ("http://shop", {"HTTP_PROXY": "http://p:1", "NO_PROXY": "shop"}, None),
        ("http://a.shop", {"HTTP_PROXY": "http://p:1", "NO_PROXY": "other, .shop"}, None),
        ("http://shop", {"HTTP_PROXY": "http://p:1", "NO_PROXY": "*"}, None),
        ("http://10.1.2.3", {"HTTP_PROXY": "http://p:1", "NO_PROXY": "10.0.0.0/8"}, None),
        ("http://11.1.2.3", {"HTTP_PROXY": "http://p:1", "NO_PROXY": "10.0.0.0/8"}, "http://p:1"),
        ("http://[fd00::1]", {"HTTP_PROXY": "http://p:1", "NO_PROXY": "[fd00::1]"}, None),
        ("http://shop", {"HTTP_PROXY": "http://p:1", "NO_PROXY": "[::1]"}, "http://p:1"),
    ],
)
def test_others_are_asked_as_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, url: str, environment: dict[str, str], proxy: str | None
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert proxy_for(url) == proxy


@pytest.mark.parametrize("proxy", ["ftp://user:hunter2@p", "http://user:hunter2@p:x", "::"])
def test_a_proxy_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    for kind in (Client, AsyncClient):
        with pytest.raises(InvalidRequestError, match="ALL_PROXY names has no address") as caught:
            kind("http://shop")
        assert "hunter2" not in str(caught.value)


def test_a_proxy_that_wants_a_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    monkeypatch.setattr("locore_client.proxies.find_spec", lambda _: None)
    with pytest.raises(InvalidRequestError, match="pip install socksio"):
        Client("http://shop")


def test_the_message_says_that_a_proxy_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", PROXY)
    with (
        Client("http://shop", retries=0) as client,
        pytest.raises(UnreachableError, match="http://shop through the proxy http://127") as caught,
    ):
        client.ready()
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("key", ["hunter\n2", "hünter2", "hunter2\0"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_repeated(key: str) -> None:
    for options in ({"api_key": key}, {"headers": {"Authorization": f"Bearer {key}"}}):
        for kind in (Client, AsyncClient):
            with pytest.raises(InvalidRequestError, match="the header Authorization") as caught:
                kind("http://127.0.0.1:1", **options)
            assert key[:3] not in str(caught.value)


def test_of_a_call_too() -> None:
    async def work() -> None:
        async with AsyncClient("http://127.0.0.1:1") as client:
            with pytest.raises(InvalidRequestError, match="the header X-Key") as caught:
                await client.ready(headers={"X-Key": "hunter\n2"})
            assert "hunter" not in str(caught.value)

    asyncio.run(work())


@pytest.mark.parametrize("key", ["secret\n", " secret ", "secret\r\n"])
def test_white_space_at_the_ends_of_a_key_is_left_out(key: str) -> None:
    with Client("http://127.0.0.1:1", key) as client:
        assert client._http.headers["Authorization"] == "Bearer secret"
