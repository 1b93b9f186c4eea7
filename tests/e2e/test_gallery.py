"""What is registered, listed, shown, deleted, and gone after its time."""

from __future__ import annotations

import time

from model.descriptors import ImageDescriptors
from service.gallery.record import DEFAULT_STORE_DTYPE
from tests.e2e.service import RunningService

Images = dict[str, ImageDescriptors]


def test_gallery_endpoints(service: RunningService, gallery: Images) -> None:
    http = service.http
    images = dict(list(gallery.items())[:5])
    answer = service.register(images, collection="own")
    assert answer.json() == {"registered": 5, "replaced": 0, "truncated": 0}
    one = {"id/with:odd@chars=+-": gallery["image-001"]}
    again = service.register({"image-000": gallery["image-001"], **one}, collection="own")
    assert again.json() == {"registered": 2, "replaced": 1, "truncated": 0}

    listed: list[str] = []
    cursor: str | None = None
    while True:
        following = {} if cursor is None else {"cursor": cursor}
        page = http.get("/gallery", params={"collection": "own", "limit": "4"} | following).json()
        assert page["count"] == 6
        listed += page["ids"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert listed == sorted([*images, *one])

    record = http.get("/gallery/image-000", params={"collection": "own"}).json()
    expected = gallery["image-001"]
    assert (record["count"], record["dimension"], record["dtype"]) == (
        expected.count,
        8,
        DEFAULT_STORE_DTYPE,
    )
    assert record["scales"] == expected.scales.tolist()
    assert record["arrays"] is None
    complete = http.get(
        "/gallery/id/with:odd@chars=+-", params={"collection": "own", "include": "descriptors"}
    ).json()
    assert complete["arrays"]["descriptors"]["shape"] == [expected.count, 8]
    assert complete["arrays"]["global"]["shape"] == [12]

    assert http.delete("/gallery/image-000", params={"collection": "own"}).status_code == 204
    assert http.delete("/gallery/image-000", params={"collection": "own"}).status_code == 404
    assert http.get("/gallery", params={"collection": "own"}).json()["count"] == 5


def test_a_ttl_ends(service: RunningService, gallery: Images) -> None:
    service.register({"brief": gallery["image-001"]}, collection="ttl", ttl_seconds=1)
    assert service.http.get("/gallery/brief", params={"collection": "ttl"}).status_code == 200
    time.sleep(1.2)
    assert service.http.get("/gallery/brief", params={"collection": "ttl"}).status_code == 404
    assert service.http.get("/gallery", params={"collection": "ttl"}).json()["ids"] == []
