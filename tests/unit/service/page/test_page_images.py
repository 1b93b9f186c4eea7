from __future__ import annotations

from typing import Any

import pytest

from service.page.page_images import allowed_url, label_of

ORIGINS = ("https://cdn.example", "http://10.0.0.1:8080")


@pytest.mark.parametrize(
    ("metadata", "label"),
    [
        (None, None),
        ({}, None),
        ({"label": "cat"}, "cat"),
        ({"label": 7}, "7"),
        ({"label": 0}, "0"),
        ({"label": ""}, None),
        ({"label": None}, None),
        ({"label": ["cat"]}, None),
        ({"label": {"name": "cat"}}, None),
    ],
)
def test_a_label_is_a_text_or_a_number(metadata: dict[str, Any] | None, label: str | None) -> None:
    assert label_of(metadata) == label


@pytest.mark.parametrize(
    "url",
    ["https://cdn.example/a.jpg?w=1", "HTTPS://CDN.example/a.jpg", "http://10.0.0.1:8080/x"],
)
def test_a_picture_of_an_origin_that_is_named_is_shown(url: str) -> None:
    assert allowed_url({"thumbnail_url": url}, ORIGINS) == url
    assert allowed_url({"thumbnail_url": url}, ()) is None


@pytest.mark.parametrize(
    "url",
    [
        "http://cdn.example/a.jpg",
        "https://cdn.example:8443/a.jpg",
        "https://cdn.example.evil.example/a.jpg",
        "https://user@cdn.example/a.jpg",
        "https://evil.example/https://cdn.example/",
        "//cdn.example/a.jpg",
        "/page/about",
        "javascript:alert(1)",
        "data:image/png;base64,AAAA",
        "https://[cdn.example/a.jpg",
        "",
        7,
        None,
    ],
)
def test_no_other_is(url: object) -> None:
    assert allowed_url({"thumbnail_url": url}, ORIGINS) is None
