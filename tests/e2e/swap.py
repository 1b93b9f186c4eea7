"""Galleries that are rebuilt beside the old one and swapped, under load."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import numpy as np

from locore_client import packed_image, rerank_body
from tests.e2e.service import RunningService
from tests.factories import image, tiny_config

CONFIG = tiny_config()
IMAGES = 40
IDS = [f"image-{number:02}" for number in range(IMAGES)]
QUERY = image(np.random.default_rng(99), CONFIG)


@dataclass(frozen=True)
class Answer:
    """`versions`: of the images in the answer, as their metadata say."""

    asked: float
    status: int
    text: str
    collection: str | None
    versions: tuple[int, ...]
    images: int


class Load:
    """Clients that re-rank through the alias without end, of all services in turn; every other
    query is a stored image."""

    def __init__(self, services: Sequence[RunningService], clients: int) -> None:
        self.answers: list[Answer] = []
        self._services = services
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask_on, args=(n,)) for n in range(clients)]

    @contextmanager
    def running(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in self._threads:
                thread.join()

    def _ask_on(self, number: int) -> None:
        described = rerank_body(QUERY, IDS, "shop", return_metadata=True, timeout_ms=60_000)
        stored = described | {"query": {"id": IDS[number]}}
        service = self._services[number % len(self._services)]
        headers = service.http.headers
        with httpx.Client(
            base_url=service.url, headers=headers, timeout=90, trust_env=False
        ) as http:
            for body in itertools.cycle((described, stored)):
                if self._over.is_set():
                    return
                asked = time.monotonic()
                response = http.post("/rerank", json=body)
                answer = response.json() if response.status_code == 200 else {}
                results = answer.get("results", [])
                versions = {result["metadata"]["version"] for result in results}
                self.answers.append(
                    Answer(
                        asked,
                        response.status_code,
                        response.text[:300] if not answer else "",
                        answer.get("collection"),
                        tuple(sorted(versions)),
                        len(results),
                    )
                )


def pages(http: httpx.Client, path: str, limit: int) -> list[dict[str, object]]:
    items: list[dict[str, object]] = []
    cursor: dict[str, str] = {}
    while True:
        page = http.get(path, params={"limit": limit, **cursor}).json()
        items += page[path.strip("/")]
        if page["next_cursor"] is None:
            return items
        cursor = {"cursor": page["next_cursor"]}


def register_version(service: RunningService, version: int) -> None:
    """In two registrations, into a collection of its own."""
    rng = np.random.default_rng(version)
    images = [
        {"id": i, "metadata": {"version": version}, **packed_image(image(rng, CONFIG))} for i in IDS
    ]
    for half in (images[: IMAGES // 2], images[IMAGES // 2 :]):
        body = {"collection": f"shop-{version}", "images": half}
        service.http.post("/gallery", json=body).raise_for_status()


def swap_under_load(
    services: Sequence[RunningService], seconds: float, clients: int = 4
) -> tuple[int, int]:
    """(swaps, answers), after checking that every request was answered, from the old gallery or
    the new one whole, and from the new one where it was asked for after the swap."""
    register_version(services[0], 0)
    pointed = services[0].http.put("/aliases/shop", json={"collection": "shop-0"})
    assert pointed.json() == {"alias": "shop", "collection": "shop-0", "previous": None}
    load = Load(services, clients)
    swapped = [(time.monotonic(), 0)]
    with load.running():
        until = time.monotonic() + seconds
        for version in itertools.count(1):
            if time.monotonic() > until:
                break
            service = services[version % len(services)]
            register_version(service, version)
            moved = service.http.put("/aliases/shop", json={"collection": f"shop-{version}"})
            assert moved.json()["previous"] == f"shop-{version - 1}", moved.text
            swapped.append((time.monotonic(), version))
            dropped = service.http.delete(f"/collections/shop-{version - 1}")
            assert dropped.status_code == 204, dropped.text
    for answer in load.answers:
        assert answer.status == 200, answer
        assert answer.images == IMAGES
        (version,) = answer.versions
        assert answer.collection == f"shop-{version}"
        newest = max(v for at, v in swapped if at <= answer.asked)
        assert version >= newest, (answer, newest)
    assert len({answer.versions for answer in load.answers}) > 2
    listed = pages(services[-1].http, "/collections", 100)
    assert [c["name"] for c in listed] == [f"shop-{swapped[-1][1]}"]
    assert listed[0]["aliases"] == ["shop"]
    return len(swapped) - 1, len(load.answers)
