"""Where the gallery is, as a setting."""

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
