"""The page's routes over HTTP: static files, the sample, first stage, matches, the key."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from locore_client import packed_image
from locore_client.packing import pack
from model.descriptor_file import DescriptorReader
from service.page.sample.sample_folders import SampleFolders
from tests.e2e.service import RunningService, code_of, ids_of, running, stored
from tests.page_sample import (
    ROWS,
    SUBJECTS,
    VIEWS,
    write_sample,
)

KEY = "a-key-of-the-page"


def matching(described: dict[str, Any], image_id: str) -> dict[str, Any]:
    asked = {name: described[name] for name in ("query", "keypoints")}
    return {**asked, "collection": "sample", "id": image_id}


@pytest.fixture(scope="module")
def strict(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """A key is set, there is no sample, and its checkpoint's extractor is not to be had."""
    with running(checkpoint, tmp_path_factory.mktemp("strict"), api_key=KEY) as started:
        yield started


def test_the_page_comes_with_a_strict_policy_and_all_its_files(page: RunningService) -> None:
    response = page.http.get("/")
    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith("text/html")
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert " on" not in policy
    folder = Path(__file__).parents[2] / "service/page/static"
    kinds = {".js": "javascript", ".css": "text/css", ".svg": "image/svg+xml", ".html": "text/html"}
    for file in folder.iterdir():
        answer = page.http.get(f"/page/static/{file.name}")
        assert answer.content == file.read_bytes()
        assert kinds[file.suffix] in answer.headers["Content-Type"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        again = page.http.get(
            f"/page/static/{file.name}", headers={"If-None-Match": answer.headers["ETag"]}
        )
        assert again.status_code == 304


def test_no_file_of_the_page_asks_anyone_else(page: RunningService) -> None:
    for file in (Path(__file__).parents[2] / "service/page/static").iterdir():
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in text
        assert "https:" not in text
        assert "//cdn" not in text


def test_about_names_the_samples_queries(page: RunningService) -> None:
    about = page.http.get("/page/about").json()
    assert about["sample"] == "sample"
    assert about["no_sample"] is None
    assert page.http.get("/page/extraction").json() == {"problem": None}
    assert about["max_upload_bytes"] == 400_000
    assert about["queries"] == [
        {"id": f"{s}.jpg", "label": s, "picture": f"page/sample/queries/{s}.jpg"} for s in SUBJECTS
    ]


def test_the_samples_images_have_their_subject_as_label(page: RunningService) -> None:
    answer = page.http.get("/page/images", params={"collection": "sample"}).json()
    assert answer["count"] == len(SUBJECTS) * VIEWS
    assert {image["id"]: image["label"] for image in answer["images"]} == {
        f"{s}/{v}.jpg": s for s in SUBJECTS for v in range(VIEWS)
    }
    for image in answer["images"]:
        assert image["picture"] == f"page/sample/gallery/{image['id']}"
        assert page.http.get(f"/{image['picture']}").headers["Content-Type"] == "image/jpeg"


def test_the_first_stage_is_by_the_cosine_of_the_globals(
    page: RunningService, folders: SampleFolders
) -> None:
    described = page.http.get("/page/sample/query?id=two.jpg").json()
    body = {"collection": "sample", "query": described["query"], "top": 4}
    answer = page.http.post("/page/shortlist", json=body).json()
    with (
        DescriptorReader(folders.queries_file) as queries,
        DescriptorReader(folders.gallery_file) as gallery,
    ):
        asked = queries[queries.ids.index("two.jpg")].global_
        assert asked is not None
        rows = {i: stored(image).global_ for i, image in gallery}
        cosines = {i: float(np.dot(row, asked)) for i, row in rows.items() if row is not None}
    best = sorted(cosines, key=lambda i: -cosines[i])[:4]
    assert [result["id"] for result in answer["results"]] == best
    assert [r["score"] for r in answer["results"]] == pytest.approx(
        [cosines[i] for i in best], abs=1e-5
    )
    assert answer["images"] == len(cosines)
    # What the page does with it next.
    reranked = page.http.post(
        "/rerank",
        json={
            "collection": answer["collection"],
            "query": described["query"],
            "gallery_ids": best,
            "global_scores": [r["score"] for r in answer["results"]],
        },
    )
    assert set(ids_of(reranked)) == set(best)


def test_matches_are_mutual_nearest_descriptors(
    page: RunningService, folders: SampleFolders
) -> None:
    described = page.http.get("/page/sample/query?id=one.jpg").json()
    body = matching(described, "three/1.jpg")
    matches = page.http.post("/page/matches", json=body).json()["matches"]
    with (
        DescriptorReader(folders.queries_file) as queries,
        DescriptorReader(folders.gallery_file) as gallery,
    ):
        q, g = queries.ids.index("one.jpg"), gallery.ids.index("three/1.jpg")
        cosines = queries[q].locals @ stored(gallery[g]).locals.T
        x, y = queries.keypoints(q), gallery.keypoints(g)
    expected = [
        (float(cosines[i, j]), x[i], y[j])
        for i in range(ROWS)
        for j in range(ROWS)
        if cosines[i, j] == cosines[i].max() == cosines[:, j].max()
    ]
    expected.sort(key=lambda match: -match[0])
    assert matches
    assert [match["cosine"] for match in matches] == pytest.approx(
        [c for c, _, _ in expected], abs=1e-4
    )
    assert [match["query"] for match in matches] == pytest.approx(
        np.array([p for _, p, _ in expected]), abs=1e-4
    )
    assert [match["gallery"] for match in matches] == pytest.approx(
        np.array([p for _, _, p in expected]), abs=1e-4
    )


def test_padding_matches_nothing(page: RunningService) -> None:
    described = page.http.get("/page/sample/query?id=one.jpg").json()
    body = matching(described, "one/0.jpg")
    body["query"] = body["query"] | {"mask": [0] + [1] * (ROWS - 1)}
    assert len(page.http.post("/page/matches", json=body).json()["matches"]) <= 1


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"id": "none/0.jpg"}, 404, "not_found"),
        ({"collection": "none"}, 404, "not_found"),
        ({"collection": "{none}"}, 422, "validation_error"),
        ({"keypoints": [[0.1, 0.2]]}, 422, "validation_error"),
        ({"keypoints": [[0.1, 0.2, 0.3]] * ROWS}, 422, "validation_error"),
        ({"keypoints": [[0.1], [0.1, 0.2]]}, 422, "validation_error"),
        ({"more": 1}, 422, "validation_error"),
        ({"query": {"descriptors": [[1.0, 2.0]]}}, 422, "descriptor_dim_mismatch"),
    ],
)
def test_matches_refuses(
    page: RunningService, changes: dict[str, Any], status: int, code: str
) -> None:
    described = page.http.get("/page/sample/query?id=one.jpg").json()
    response = page.http.post("/page/matches", json=matching(described, "one/0.jpg") | changes)
    assert code_of(response) == (status, code)


def test_shortlist_refuses(page: RunningService) -> None:
    query = page.http.get("/page/sample/query?id=one.jpg").json()["query"]

    def refused(body: dict[str, Any]) -> tuple[int, str]:
        return code_of(page.http.post("/page/shortlist", json=body))

    assert refused({"query": query}) == (422, "validation_error")
    assert refused({"collection": "none", "query": query}) == (404, "not_found")
    other = {"descriptors": [[1.0, 2.0]]}
    assert refused({"collection": "sample", "query": other}) == (422, "descriptor_dim_mismatch")
    assert code_of(page.http.post("/page/shortlist", content=b"{")) == (400, "invalid_json")


def test_pictures_are_those_on_disk(page: RunningService, folders: SampleFolders) -> None:
    for path, file in (
        ("gallery/one/1.jpg", folders.gallery / "one/1.jpg"),
        ("queries/two.jpg", folders.queries / "two.jpg"),
    ):
        response = page.http.get(f"/page/sample/{path}")
        assert response.content == file.read_bytes()
        assert response.headers["Content-Type"] == "image/jpeg"


def test_the_key_guards_all_but_the_page_itself(strict: RunningService) -> None:
    for path in ("/", "/page/static/page.js"):
        assert strict.http.get(path).status_code == 200
    asked = (
        ("GET", "/page/about"),
        ("GET", "/page/sample/gallery/one/0.jpg"),
        ("GET", "/page/sample/queries/one.jpg"),
        ("GET", "/page/sample/query?id=one.jpg"),
        ("GET", "/page/extraction"),
        ("GET", "/page/images?collection=sample"),
        ("GET", "/page/image?collection=sample&id=one/0.jpg"),
        ("GET", "/page/thumbnail?collection=sample&id=one/0.jpg"),
        ("POST", "/extract"),
        ("POST", "/page/shortlist"),
        ("POST", "/page/matches"),
    )
    for method, path in asked:
        assert code_of(strict.http.request(method, path)) == (401, "unauthorized"), path


def test_without_sample_and_extractor_the_page_can_say_so(strict: RunningService) -> None:
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "image/*"}
    about = strict.http.get("/page/about", headers=headers).json()
    assert about["queries"] == []
    assert about["no_sample"] == "there is no sample gallery here"
    assert "made-up" in strict.http.get("/page/extraction", headers=headers).json()["problem"]
    for method, path, refusal in (
        ("POST", "/extract", (501, "no_extractor")),
        ("GET", "/page/sample/query?id=one.jpg", (404, "no_sample")),
        ("GET", "/page/sample/gallery/one/0.jpg", (404, "no_sample")),
    ):
        response = strict.http.request(method, path, headers=headers)
        assert code_of(response) == refusal


def test_a_sample_of_another_extractor_is_not_searched(tmp_path: Path, checkpoint: Path) -> None:
    write_sample(tmp_path / "sample", "another", 8, 12)
    with running(checkpoint, tmp_path) as service:
        about = service.http.get("/page/about").json()
        assert about["no_sample"] == "the sample gallery on disk does not fit this checkpoint"
        assert str(tmp_path) not in json.dumps(about)
        # Made anew while the service runs, it is found.
        for file in (tmp_path / "sample").glob("*.h5"):
            file.unlink()
        (tmp_path / "sample/rerank.json").unlink()
        assert service.http.get("/page/about").json()["no_sample"]
        (tmp_path / "sample").rename(tmp_path / "old")
        write_sample(tmp_path / "sample", "made-up", 8, 12)
        assert len(service.http.get("/page/about").json()["queries"]) == len(SUBJECTS)


def test_the_pages_requests_are_counted_as_the_pages(page: RunningService) -> None:
    series = 'locore_requests_total{endpoint="page",status="200"}'
    before = page.metric(series)
    assert page.http.get("/page/about").is_success
    assert page.metric(series) == before + 1


def test_a_query_as_the_client_packs_it_goes_too(
    page: RunningService, folders: SampleFolders
) -> None:
    with DescriptorReader(folders.queries_file) as queries:
        image, keypoints = queries[0], queries.keypoints(0)
    described = {"query": packed_image(image), "keypoints": pack(keypoints)}
    body = matching(described, "one/0.jpg")
    assert page.http.post("/page/matches", json=body).is_success
