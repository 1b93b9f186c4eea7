"""Where the gallery is, as a setting; and what the environment holds that is none."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from service.settings import Settings


@pytest.mark.parametrize(
    "url",
    [
        "embedded",
        "redis://localhost:6379/0",
        "unix:///run/valkey.sock",
        "redis+sentinel://one:26379,two:26379/gallery",
        "rediss+cluster://:secret@one:7000,two:7000",
    ],
)
def test_stores(url: str) -> None:
    assert Settings(redis_url=url).redis_url == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:6379",
        "http://localhost",
        "redis://",
        "redis://one:1,two:2",
        "redis+sentinel://one:26379",
        "redis+cluster://one:7000/5",
        "unix+cluster:///run/valkey.sock",
    ],
)
def test_what_is_no_store_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="redis_url"):
        Settings(redis_url=url)


@pytest.mark.parametrize("key", ["secret", "secret\n", " secret ", "secret\r\n"])
def test_a_key_is_without_the_spaces_around_it(key: str) -> None:
    secret = Settings(api_key=key).api_key
    assert secret is not None
    assert secret.get_secret_value() == "secret"


@pytest.mark.parametrize(
    "keys",
    [
        {"api_key": "two words"},
        {"api_key": "schlüssel"},
        {"api_key": " \n"},
        {"read_key": "alone"},
        {"api_key": "same", "read_key": "same\n"},
    ],
)
def test_keys_that_let_nobody_in_or_everybody_are_refused(keys: dict[str, str]) -> None:
    with pytest.raises(ValidationError) as refusal:
        Settings(**keys)  # type: ignore[arg-type]
    assert not any(repr(text) in repr(refusal.value.errors()[0]["msg"]) for text in keys.values())


@pytest.mark.parametrize("prefix", ["locore", "/locore/", "/a b", "/a\n", "//"])
def test_a_prefix_that_no_proxy_has_is_refused(prefix: str) -> None:
    with pytest.raises(ValidationError, match="root_path"):
        Settings(root_path=prefix)


@pytest.mark.parametrize("origin", ["shop.example", "https://", "https://shop.example/page"])
def test_what_is_no_origin_is_refused(origin: str) -> None:
    with pytest.raises(ValidationError, match="allowed_origins"):
        Settings(allowed_origins=origin)


@pytest.mark.parametrize(
    "address", ["tcp://10.0.0.7:80", "udp://10.0.0.7:53", "tcp://[fd00::7]:80"]
)
def test_what_the_platform_sets_of_a_service_of_our_name_is_no_setting(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    """Kubernetes (service links) and Docker (container links) do so."""
    for name, value in {
        "LOCORE_PORT": address,
        "LOCORE_SERVICE_HOST": "10.0.0.7",
        "LOCORE_SERVICE_PORT": "80",
        "LOCORE_PORT_80_TCP": address,
        "LOCORE_PORT_80_TCP_ADDR": "10.0.0.7",
        "LOCORE_NAME": "/page/locore",
    }.items():
        monkeypatch.setenv(name, value)
    assert Settings().port == 8000
    assert Settings(port=9000).port == 9000


@pytest.mark.parametrize("port", ["tcp", "80000", "tcp://", "8000x"])
def test_a_wrong_port_is_refused(monkeypatch: pytest.MonkeyPatch, port: str) -> None:
    monkeypatch.setenv("LOCORE_PORT", port)
    with pytest.raises(ValidationError, match="port"):
        Settings()


def test_errors_repeat_no_secret() -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(redis_url="redis://:hunter#2@redis")
    assert "hunter" not in str(caught.value)
