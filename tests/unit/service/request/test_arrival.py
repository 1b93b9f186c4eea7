"""What an early look at a body tells of its deadline."""

from __future__ import annotations

import gzip
import json
import math

import pytest

from service.request.arrival import deadline_of


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        (json.dumps({"query": {"descriptors": [[0.5]]}, "timeout_ms": 1500}), 1.5),
        ('{"timeout_ms" :\n 20, "gallery_ids": ["a"]}', 0.02),
        # The last one counts, as it does for the parser.
        ('{"timeout_ms": 1, "timeout_ms": 2000}', 2),
        ('{"gallery_ids": ["timeout_ms"]}', 10),
        ('{"gallery_ids": ["a"]}', 10),
        ('{"timeout_ms": "soon"}', 10),
        ('{"timeout_ms": null}', 10),
        ('{"timeout_ms"', 10),
        ("", 10),
    ],
)
def test_the_deadline_of_a_body(body: str, seconds: float) -> None:
    assert deadline_of(body.encode(), 100) == pytest.approx(100 + seconds)


def test_a_compressed_body_tells_nothing() -> None:
    assert deadline_of(gzip.compress(b'{"timeout_ms": 1}'), 100) == math.inf
