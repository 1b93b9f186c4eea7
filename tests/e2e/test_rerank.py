"""POST /rerank against the offline model."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import redis

from locore_client import rerank_body
from model.checkpoint import LoadedModel
from model.descriptors import ImageDescriptors
from model.evaluation.retrieval import rerank_list
from model.reranker import score_windows
from model.scoring import ensemble
from model.windows import RerankOptions, Window
from tests.e2e.service import RunningService, ids_of, scores_of, stored
from tests.factories import image, tiny_config
from tests.stored_records import COLLECTION, NAMES, expected, stored_bytes

CONFIG = tiny_config()
Images = dict[str, ImageDescriptors]


def offline(
    model: LoadedModel,
    query: ImageDescriptors,
    images: Images,
    options: RerankOptions,
    first_stage: list[float] | None = None,
) -> tuple[list[str], dict[str, float]]:
    """(order, scores) as the offline evaluation makes them."""
    ids, gallery = list(images), [stored(image) for image in images.values()]
    similarities = None if first_stage is None else np.array(first_stage, np.float32)
    order, relevance = rerank_list(
        model.reranker, model.device, query, gallery, options, similarities
    )
    return [ids[i] for i in order], {ids[i]: s for i, s in zip(order, relevance, strict=True)}


def options(model: LoadedModel, **changes: Any) -> RerankOptions:
    return RerankOptions(**(model.config.rerank.model_dump() | changes))


def test_the_round_trip(
    service: RunningService, model: LoadedModel, gallery: Images, query: ImageDescriptors
) -> None:
    images = dict(list(gallery.items())[:30])
    response = service.rerank(query, list(images))
    order, scores = offline(model, query, images, options(model))
    assert ids_of(response) == order
    assert scores_of(response) == pytest.approx(scores, abs=1e-4)
    body = response.json()
    assert body["model"] == "tiny"
    assert body["id"] == response.headers["X-Request-ID"]
    assert (body["missing"], body["truncated"]) == ([], False)
    # The query's own; of an image its own, and those of its best matches.
    tokens = 1 + 30 * (1 + min(CONFIG.matches_per_image, query.count))
    assert body["usage"] == {"images": 30, "windows": 1, "tokens": tokens}
    assert [r["index"] for r in body["results"]] == [list(images).index(i) for i in order]
    falling = [r["relevance_score"] for r in body["results"]]
    assert falling == sorted(falling, reverse=True)
    assert set(body["timings_ms"]) == {
        *("decode", "extract", "fetch", "queue", "inference", "total")
    }
    assert 0 < body["timings_ms"]["inference"] <= body["timings_ms"]["total"]


@pytest.mark.parametrize(
    "direction",
    ["end-to-start", "start-to-end", "end-to-start-to-end", "start-to-end-to-start"],
)
def test_a_long_shortlist_comes_out_in_the_offline_models_order(
    service: RunningService,
    model: LoadedModel,
    gallery: Images,
    query: ImageDescriptors,
    direction: str,
) -> None:
    images = dict(list(gallery.items())[:400])
    response = service.rerank(query, list(images), direction=direction)
    order, scores = offline(model, query, images, options(model, direction=direction))
    assert ids_of(response) == order
    assert scores_of(response) == pytest.approx(scores, abs=1e-4)
    assert response.json()["usage"]["windows"] == (13 if direction.count("-to-") == 2 else 7)


def test_given_scores_and_options_count(
    service: RunningService, model: LoadedModel, gallery: Images, query: ImageDescriptors
) -> None:
    images = dict(list(gallery.items())[:12])
    first_stage = [1 - n / 12 for n in range(12)]
    changes = {"alpha": 0.3, "temperature": 0.7, "window": 5, "stride": 2}
    response = service.rerank(query, list(images), global_scores=first_stage, **changes)
    order, scores = offline(model, query, images, options(model, **changes), first_stage)
    assert ids_of(response) == order
    assert scores_of(response) == pytest.approx(scores, abs=1e-4)
    only_first = service.rerank(query, list(images), global_scores=first_stage, alpha=1)
    assert ids_of(only_first) == list(images)
    assert scores_of(only_first) == pytest.approx(dict(zip(images, first_stage, strict=True)))


def test_without_globals_alpha_counts_as_zero(
    service: RunningService, model: LoadedModel, gallery: Images
) -> None:
    query = image(np.random.default_rng(5), CONFIG, with_global=False)
    images = dict(list(gallery.items())[:9])
    response = service.rerank(query, list(images), alpha=0.9, temperature=1)
    window = Window(query, [stored(i) for i in images.values()])
    (logits,) = score_windows(model.reranker, [window], model.device)
    expected = dict(zip(images, ensemble(logits, None, 0.9, 1).tolist(), strict=True))
    assert scores_of(response) == pytest.approx(expected, abs=1e-4)


def test_nested_lists_and_packed_arrays_score_alike(
    service: RunningService, gallery: Images, query: ImageDescriptors
) -> None:
    ids = list(gallery)[:20]
    assert query.global_ is not None
    nested = {
        "descriptors": query.locals.tolist(),
        "scales": query.scales.tolist(),
        "global": query.global_.tolist(),
    }
    by_lists = service.http.post("/rerank", json={"query": nested, "gallery_ids": ids})
    assert scores_of(by_lists) == pytest.approx(scores_of(service.rerank(query, ids)), abs=1e-5)


def test_top_n_metadata_and_truncation(service: RunningService, gallery: Images) -> None:
    rng = np.random.default_rng(2)
    long = image(rng, CONFIG, rows=CONFIG.descriptors_per_image + 3)
    ids = list(gallery)[:10]
    complete = service.rerank(long, ids)
    assert complete.json()["truncated"] is True
    assert scores_of(complete) == pytest.approx(
        scores_of(service.rerank(long.strongest(CONFIG.descriptors_per_image), ids)), abs=1e-5
    )
    few = service.rerank(long, ids, top_n=3)
    assert ids_of(few) == ids_of(complete)[:3]
    assert all(r["metadata"] is None for r in few.json()["results"])
    meta = {"url": "https://example.org/ä", "n": [1, 2]}
    body = {"id": "m", "descriptors": long.locals.tolist(), "metadata": meta}
    registered = service.http.post("/gallery", json={"collection": "meta", "images": [body]})
    assert registered.json() == {"registered": 1, "replaced": 0, "truncated": 1}
    with_metadata = service.rerank(long, ["m"], collection="meta", return_metadata=True)
    assert with_metadata.json()["results"][0]["metadata"] == meta


def test_the_query_may_be_a_stored_image(service: RunningService, gallery: Images) -> None:
    ids = list(gallery)
    # With a global and without; among the images and not.
    for image_id, shortlist in ((ids[1], ids[:30]), (ids[7], ids[:30]), (ids[50], ids[:30])):
        body = {"query": {"id": image_id}, "gallery_ids": shortlist, "alpha": 0.4}
        by_id = service.http.post("/rerank", json=body)
        by_descriptors = service.rerank(stored(gallery[image_id]), shortlist, alpha=0.4)
        assert ids_of(by_id) == ids_of(by_descriptors)
        assert scores_of(by_id) == pytest.approx(scores_of(by_descriptors), abs=1e-4)
        assert by_id.json()["truncated"] is False
        assert by_id.json()["usage"] == by_descriptors.json()["usage"]
        assert by_id.json()["collection"] == "default"
    holes = [ids[3], "none-1", ids[4]]
    body = {"query": {"id": ids[1]}, "gallery_ids": holes, "on_missing": "skip"}
    skipped = service.http.post("/rerank", json=body).json()
    assert skipped["missing"] == ["none-1"]
    assert {r["id"] for r in skipped["results"]} == {ids[3], ids[4]}
    body = {"query": {"id": ids[1]}, "gallery_ids": ["none-1"], "on_missing": "skip"}
    assert service.http.post("/rerank", json=body).status_code == 404


def test_results_below_the_least_score_are_left_out(
    service: RunningService, gallery: Images, query: ImageDescriptors
) -> None:
    """Of a list of several windows, where scores do not fall from first to last."""
    ids = list(gallery)[:60]
    options = {"window": 20, "stride": 10, "temperature": 1.0}
    complete = service.rerank(query, ids, **options).json()["results"]
    scores = [result["relevance_score"] for result in complete]
    assert scores != sorted(scores, reverse=True)
    least = sorted(scores)[30]
    good = [result for result in complete if result["relevance_score"] >= least]
    assert 25 < len(good) < 35
    for top_n in (None, 100, 7):
        cut = service.rerank(query, ids, min_score=least - 1e-5, top_n=top_n, **options)
        assert ids_of(cut) == [result["id"] for result in good][:top_n]
    assert service.rerank(query, ids, min_score=2).json()["results"] == []
    assert len(ids_of(service.rerank(query, ids, min_score=-2))) == 60


def test_missing_ids_can_be_skipped(
    service: RunningService, gallery: Images, query: ImageDescriptors
) -> None:
    ids = list(gallery)[:6]
    scores = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]
    with_holes = [ids[0], "none-1", *ids[1:], "none-2"]
    with_scores = [scores[0], 0.1, *scores[1:], 0.2]
    response = service.rerank(query, with_holes, global_scores=with_scores, on_missing="skip")
    plain = service.rerank(query, ids, global_scores=scores)
    assert response.json()["missing"] == ["none-1", "none-2"]
    assert scores_of(response) == pytest.approx(scores_of(plain), abs=1e-5)
    assert all(with_holes[r["index"]] == r["id"] for r in response.json()["results"])
    assert response.json()["usage"]["images"] == 6


def test_64_concurrent_requests_score_as_each_does_alone(
    service: RunningService, gallery: Images
) -> None:
    rng = np.random.default_rng(3)
    names = list(gallery)
    bodies = []
    for _ in range(64):
        size = int(rng.choice([1, 3, 20, 60, 100, 250]))
        ids = [names[i] for i in rng.permutation(len(names))[:size]]
        bodies.append(rerank_body(image(rng, CONFIG), ids, "default", timeout_ms=60_000))
    alone = [service.http.post("/rerank", json=body) for body in bodies]
    passes = service.metric("locore_batch_windows_count")
    windows = service.metric("locore_batch_windows_sum")

    async def at_once() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=64)
        async with httpx.AsyncClient(base_url=service.url, timeout=60, limits=limits) as http:
            return await asyncio.gather(*(http.post("/rerank", json=body) for body in bodies))

    for one, other in zip(alone, asyncio.run(at_once()), strict=True):
        assert ids_of(other) == ids_of(one)
        assert scores_of(other) == pytest.approx(scores_of(one), abs=1e-4)
    passes = service.metric("locore_batch_windows_count") - passes
    windows = service.metric("locore_batch_windows_sum") - windows
    assert windows / passes > 1


def test_a_gallery_that_an_earlier_version_stored_is_re_ranked(
    service: RunningService, model: LoadedModel, query: ImageDescriptors
) -> None:
    """Records of all formats side by side, in a collection from before collections had sizes."""
    (socket,) = Path(service._log.parent).rglob("valkey.sock")
    with redis.Redis(unix_socket_path=str(socket)) as raw:
        for name in NAMES:
            raw.set(f"locore:image:{COLLECTION}|{name}", stored_bytes(name))
            raw.zadd(f"locore:ids:{{{COLLECTION}}}", {name: 0})
    answer = service.rerank(query, list(NAMES), collection=COLLECTION, return_metadata=True)
    gallery = [expected(name) for name in NAMES]
    order, relevance = rerank_list(
        model.reranker, model.device, query, [r.descriptors for r in gallery], options(model), None
    )
    assert ids_of(answer) == [NAMES[place] for place in order]
    scores = scores_of(answer)
    assert [scores[NAMES[i]] for i in order] == pytest.approx(relevance, abs=1e-4)
    metadata = {r["id"]: r["metadata"] for r in answer.json()["results"]}
    assert metadata == {name: r.metadata for name, r in zip(NAMES, gallery, strict=True)}
    page = service.http.get("/gallery", params={"collection": COLLECTION}).json()
    assert page["sizes"] == {"local": 8, "global": 12}
