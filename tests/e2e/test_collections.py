"""Collections and aliases over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from model.descriptors import ImageDescriptors
from tests.e2e.service import RunningService, code_of, free_port, ids_of, running
from tests.e2e.swap import pages, swap_under_load
from tests.e2e.valkey import plain_valkey

Images = dict[str, ImageDescriptors]


@pytest.fixture(scope="module")
def store_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    with plain_valkey(port, tmp_path_factory.mktemp("valkey")):
        yield f"redis://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def services(
    checkpoint: Path, store_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[RunningService, RunningService]]:
    """Two on one store, with keys."""
    folder = tmp_path_factory.mktemp("services")
    start = partial(running, api_key="write", read_key="read", redis_url=store_url)
    with start(checkpoint, folder / "one") as one, start(checkpoint, folder / "other") as other:
        for service in (one, other):
            service.http.headers["Authorization"] = "Bearer write"
        yield one, other


def some(gallery: Images, start: int, count: int) -> Images:
    return dict(list(gallery.items())[start : start + count])


def test_collections_are_listed_emptied_and_dropped(
    services: tuple[RunningService, RunningService], gallery: Images, query: ImageDescriptors
) -> None:
    one, other = services
    for number in range(5):
        assert one.register(some(gallery, 10, 4), collection=f"list/{number}").is_success
    listed = [c for c in pages(other.http, "/collections", 2) if "list/" in str(c["name"])]
    assert [c["name"] for c in listed] == [f"list/{number}" for number in range(5)]
    answer = other.http.get("/collections/list/0").json()
    assert answer == listed[0]
    assert (answer["count"], answer["aliases"]) == (4, [])
    assert answer["sizes"] == {"local": 8, "global": 12}
    assert 4 * 30 < answer["bytes"] < 4 * 300

    ids = list(some(gallery, 10, 4))
    assert len(ids_of(other.rerank(query, ids, collection="list/0"))) == 4
    emptied = one.http.delete("/gallery", params={"collection": "list/0"})
    assert emptied.json() == {"collection": "list/0", "deleted": 4}
    # The other has them in its cache, and knows at once.
    for service in services:
        refused = service.rerank(query, ids, collection="list/0")
        assert code_of(refused) == (404, "gallery_ids_missing")
    answer = one.http.get("/collections/list/0").json()
    assert (answer["count"], answer["sizes"], answer["bytes"]) == (0, None, 0)
    assert code_of(one.http.delete("/gallery")) == (422, "validation_error")
    assert code_of(one.http.delete("/gallery", params={"collection": "none"})) == (404, "not_found")

    for number in range(5):
        assert one.http.delete(f"/collections/list/{number}").status_code == 204
        gone = other.http.get(f"/collections/list/{number}")
        assert code_of(gone) == (404, "not_found")
    assert code_of(one.http.delete("/collections/list/0")) == (404, "not_found")
    assert not [c for c in pages(one.http, "/collections", 9) if "list/" in str(c["name"])]


def test_an_alias_stands_wherever_a_collection_is_named(
    services: tuple[RunningService, RunningService], gallery: Images, query: ImageDescriptors
) -> None:
    one, other = services
    old, new = some(gallery, 10, 4), some(gallery, 20, 4)
    assert one.register(old, collection="old").is_success
    assert one.register(new, collection="new").is_success
    moved = one.http.put("/aliases/a/b", json={"collection": "old"})
    assert moved.json() == {"alias": "a/b", "collection": "old", "previous": None}
    answer = other.rerank(query, list(old), collection="a/b")
    assert (set(ids_of(answer)), answer.json()["collection"]) == (set(old), "old")

    moved = one.http.put("/aliases/a/b", json={"collection": "new"})
    assert moved.json() == {"alias": "a/b", "collection": "new", "previous": "old"}
    through = {"collection": "a/b"}
    answer = other.rerank(query, list(new), **through)
    assert (set(ids_of(answer)), answer.json()["collection"]) == (set(new), "new")
    assert code_of(other.rerank(query, list(old), **through)) == (404, "gallery_ids_missing")
    listed = other.http.get("/gallery", params=through).json()
    assert (listed["collection"], listed["ids"]) == ("new", sorted(new))
    first, second, *_ = sorted(new)
    record = other.http.get(f"/gallery/{first}", params=through).json()
    assert record["collection"] == "new"
    assert other.http.delete(f"/gallery/{first}", params=through).status_code == 204
    assert other.register(some(gallery, 30, 2), **through).json()["registered"] == 2
    assert one.http.get("/collections/new").json()["count"] == 5
    assert other.http.get("/collections/a/b").json()["name"] == "new"
    assert code_of(one.http.get(f"/gallery/{first}", params={"collection": "new"}))[0] == 404
    more = other.http.get(f"/gallery/{second}", params={"collection": "new"})
    assert more.is_success

    refused = one.http.delete("/collections/new")
    assert code_of(refused) == (409, "collection_in_use")
    assert refused.json()["error"]["details"] == {"aliases": ["a/b"]}
    assert code_of(one.http.put("/aliases/old", json={"collection": "new"})) == (409, "name_taken")
    none = one.http.put("/aliases/a/b", json={"collection": "none"})
    assert code_of(none) == (404, "not_found")
    for body in ({}, {"collection": "a b"}, {"collection": "old", "more": 1}):
        wrong = one.http.put("/aliases/a/b", json=body)
        assert code_of(wrong) == (422, "validation_error")
    assert pages(other.http, "/aliases", 1) == [{"alias": "a/b", "collection": "new"}]

    assert other.http.delete("/aliases/a/b").status_code == 204
    assert code_of(other.http.delete("/aliases/a/b")) == (404, "not_found")
    assert code_of(one.rerank(query, list(old), **through)) == (404, "gallery_ids_missing")
    for name in ("old", "new"):
        assert one.http.delete(f"/collections/{name}").status_code == 204


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", "/gallery?collection=kept"),
        ("DELETE", "/collections/kept"),
        ("PUT", "/aliases/alias"),
        ("DELETE", "/aliases/alias"),
    ],
)
def test_changes_want_the_key_that_may_write(
    services: tuple[RunningService, RunningService], gallery: Images, method: str, path: str
) -> None:
    one, _ = services
    assert one.register(some(gallery, 10, 1), collection="kept").is_success
    body = {"collection": "kept"} if method == "PUT" else None
    for key, expected in (("read", (403, "forbidden")), ("none", (401, "unauthorized"))):
        headers = {"Authorization": f"Bearer {key}"}
        refused = one.http.request(method, path, json=body, headers=headers)
        assert code_of(refused) == expected
    assert one.http.get("/collections/kept").json()["count"] == 1
    foreign = {"Origin": "https://other.example"}
    refused = one.http.request(method, path, json=body, headers=foreign)
    assert code_of(refused) == (403, "forbidden")


@pytest.mark.parametrize("path", ["/collections", "/collections/kept", "/aliases"])
def test_lists_want_the_key_that_may_read(
    services: tuple[RunningService, RunningService], gallery: Images, path: str
) -> None:
    one, _ = services
    assert one.register(some(gallery, 10, 1), collection="kept").is_success
    assert one.http.get(path, headers={"Authorization": "Bearer read"}).is_success
    refused = one.http.get(path, headers={"Authorization": "Bearer none"})
    assert code_of(refused) == (401, "unauthorized")
    wrong = one.http.get(path, params={"cursor": "!", "limit": 0})
    assert "kept" in path or code_of(wrong) == (422, "validation_error")


def test_a_swap_under_load_is_a_swap(services: tuple[RunningService, RunningService]) -> None:
    """The short version of tests/slow/test_swap.py."""
    one, _ = services
    for listed in pages(one.http, "/collections", 100):
        assert one.http.delete(f"/collections/{listed['name']}").status_code == 204
    swaps, answers = swap_under_load(services, 3, clients=2)
    assert swaps >= 3
    assert answers >= 10
