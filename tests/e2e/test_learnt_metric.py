"""A collection that is re-ranked in a metric, over HTTP and from files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from model.descriptor_file import DescriptorReader
from model.descriptors import ImageDescriptors
from model.learnt_metric import Metric, load_metric
from tests.any_size import COMMAND
from tests.descriptor_files import write_descriptors
from tests.e2e.command import error_of, output_of
from tests.e2e.service import RunningService, code_of, ids_of, running, scores_of
from tests.factories import SIZES, image, tiny_config, unit
from tests.metric_files import write_metric

IDS = [f"image-{n}" for n in range(12)]
Images = dict[str, ImageDescriptors]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("metric")


@pytest.fixture(scope="module")
def metric(folder: Path) -> Metric:
    return write_metric(folder / "shop.metric.safetensors", SIZES)


@pytest.fixture(scope="module")
def gallery() -> Images:
    rng = np.random.default_rng(3)
    return {image_id: image(rng, tiny_config()) for image_id in IDS}


@pytest.fixture(scope="module")
def service(folder: Path, metric: Metric, gallery: Images) -> Iterator[RunningService]:
    """With a metric for the collections `shop` and `other`; `plain` has none."""
    path = folder / "shop.metric.safetensors"
    metrics, data = f"shop={path},other={path}", folder / "data"
    with running(
        Path("none.safetensors"), data, command=COMMAND, metrics=metrics, store_dtype="float32"
    ) as started:
        for collection in ("shop", "plain"):
            assert started.register(gallery, collection=collection).is_success
        yield started


def cosines(query: ImageDescriptors, images: Images, metric: Metric | None) -> dict[str, float]:
    def direction(some: ImageDescriptors) -> np.ndarray:
        global_ = (some if metric is None else metric.apply(some)).global_
        assert global_ is not None
        return global_.astype(np.float64) / np.linalg.norm(global_.astype(np.float64))

    asked = direction(query)
    return {i: float(asked @ direction(some)) for i, some in images.items()}


def by(scores: dict[str, float]) -> list[str]:
    return sorted(scores, key=lambda image_id: -scores[image_id])


def test_the_first_stage_s_share_is_in_the_metric_and_elsewhere_plain(
    service: RunningService, gallery: Images, query: ImageDescriptors, metric: Metric
) -> None:
    wanted = {"shop": cosines(query, gallery, metric), "plain": cosines(query, gallery, None)}
    assert by(wanted["shop"]) != by(wanted["plain"])
    # The second time the images are in the cache.
    for collection in ("shop", "plain", "shop"):
        answer = service.rerank(query, IDS, collection=collection, alpha=1)
        assert ids_of(answer) == by(wanted[collection])
        assert scores_of(answer) == pytest.approx(wanted[collection], abs=1e-4)


def test_a_stored_query_is_in_the_metric_and_an_alias_has_that_of_its_collection(
    service: RunningService, gallery: Images, query: ImageDescriptors, metric: Metric
) -> None:
    others = {image_id: some for image_id, some in gallery.items() if image_id != IDS[0]}
    wanted = {"shop": cosines(gallery[IDS[0]], others, metric)}
    wanted["plain"] = cosines(gallery[IDS[0]], others, None)
    assert by(wanted["shop"]) != by(wanted["plain"])
    for collection in ("shop", "plain", "shop"):
        pointed = service.http.put("/aliases/pointed", json={"collection": collection})
        assert pointed.is_success
        for name in (collection, "pointed"):
            body = {"query": {"id": IDS[0]}, "gallery_ids": list(others), "alpha": 1}
            answer = service.http.post("/rerank", json=body | {"collection": name})
            assert ids_of(answer) == by(wanted[collection])
            assert scores_of(answer) == pytest.approx(wanted[collection], abs=1e-4)
            answer = service.rerank(query, list(others), collection=name, alpha=1)
            expected = cosines(query, others, metric if collection == "shop" else None)
            assert scores_of(answer) == pytest.approx(expected, abs=1e-4)
    assert service.http.delete("/aliases/pointed").is_success


def test_what_is_stored_is_in_no_metric(service: RunningService, gallery: Images) -> None:
    images = [
        service.http.get(f"/gallery/{IDS[0]}", params={"collection": c, "include": "descriptors"})
        for c in ("shop", "plain")
    ]
    assert images[0].json()["arrays"] == images[1].json()["arrays"]
    page = service.http.get("/gallery", params={"collection": "shop"}).json()
    assert page["sizes"] == {"local": SIZES.local_dim, "global": SIZES.global_dim}


def test_the_service_tells_which_collections_have_one(service: RunningService) -> None:
    assert service.http.get("/info").json()["metrics"] == ["other", "shop"]


def test_images_without_globals_are_ranked_by_their_locals(
    service: RunningService, query: ImageDescriptors
) -> None:
    rng = np.random.default_rng(4)
    bare = {f"bare-{n}": image(rng, tiny_config(), with_global=False) for n in range(5)}
    for collection in ("shop", "plain"):
        assert service.register(bare, collection=collection).is_success
    answers = [service.rerank(query, list(bare), collection=c, alpha=1) for c in ("shop", "plain")]
    assert scores_of(answers[0]) == scores_of(answers[1])


def test_sizes_that_the_metric_is_not_for_are_refused(
    service: RunningService, query: ImageDescriptors
) -> None:
    rng = np.random.default_rng(5)
    other = ImageDescriptors(unit(rng, 2, 9), np.zeros(2, np.uint8), unit(rng, 1, 12)[0])
    assert service.register({"a": other}, collection="other").is_success
    for asked, field in ((other, "query.descriptors"), (query, "gallery_ids")):
        answer = service.rerank(asked, ["a"], collection="other")
        assert code_of(answer) == (422, "descriptor_dim_mismatch")
        error = answer.json()["error"]
        assert "but the metric of collection 'other' has 8" in error["message"]
        details = error["details"]
        assert (details["field"], details["expected"], details["found"]) == (field, 8, 9)


def test_a_bad_metric_ends_the_start_in_one_line(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.safetensors").write_bytes(b"not a metric")
    serve = ["serve", "--data-dir", tmp_path / "data", "--checkpoint", checkpoint, "--port", 0]
    message = error_of(capsys, *serve, "--metric", f"shop={tmp_path / 'bad.safetensors'}")
    assert "bad.safetensors: not a readable safetensors file" in message
    assert "--metric / LOCORE_METRICS" in error_of(capsys, *serve, "--metric", "shop")
    twice = ["--metric", "shop=a", "--metric", "shop=b"]
    assert "a collection has one metric" in error_of(capsys, *serve, *twice)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Photographs in a folder each, labels of them, and views of them."""
    ids = [f"{name}/{name}-{n}.jpg" for name in ("cat", "dog", "fox") for n in range(4)]
    write_descriptors(tmp_path / "photos.h5", ids, seed=1)
    views = [f"{image_id}@{number}" for image_id in ids[:6] for number in range(3)]
    write_descriptors(tmp_path / "views.h5", views, seed=2)
    rows = [f"images/{image_id},{image_id.split('/')[0]}" for image_id in ids]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *rows, "images/no.jpg,cat"]))
    return tmp_path


def test_a_metric_is_fitted_from_labels_folders_or_views(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    descriptors = ["fit-metric", "--descriptors", files / "photos.h5"]
    labels, views = ["--labels", files / "labels.csv"], ["--views", files / "views.h5"]
    metrics: list[Metric] = []
    for number, (arguments, message) in enumerate(
        (
            ([*descriptors, *labels], "from 12 images of 3 labels"),
            (descriptors, "from 12 images of 3 labels"),
            ([*descriptors, *views], "12 images of 3 labels and 18 images of 6 photographs"),
            (["fit-metric", *views], "from 18 images of 6 photographs"),
        )
    ):
        output = files / f"{number}.safetensors"
        assert message in output_of(capsys, *arguments, "-o", output)
        metrics.append(load_metric(output))
        assert (metrics[-1].sizes, metrics[-1].extractor.name) == (SIZES, "made-up")
    np.testing.assert_array_equal(metrics[0].matrix, metrics[1].matrix)
    assert not np.allclose(metrics[1].matrix, metrics[2].matrix)


def test_what_teaches_no_metric_is_said_in_one_line(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = files / "out.safetensors"
    good = ["fit-metric", "--descriptors", files / "photos.h5", "-o", output]
    write_descriptors(files / "flat.h5", ["cat-1.jpg", "cat-2.jpg"])
    write_descriptors(files / "alone.h5", ["cat/1.jpg", "dog/1.jpg"])
    write_descriptors(files / "other.h5", ["a.jpg@0", "a.jpg@1"], sizes=(9, 12))
    (files / "labels of others.csv").write_text("path,label\nx.jpg,cat\n")
    (files / "no labels.csv").write_text("path,kind\nx.jpg,cat\n")
    for arguments, message in (
        (["fit-metric", "-o", output], "give --descriptors"),
        (["fit-metric", "--descriptors", files / "none.h5", "-o", output], "no such file"),
        (["fit-metric", "--descriptors", files / "flat.h5", "-o", output], "lies in no folder"),
        (["fit-metric", "--descriptors", files / "alone.h5", "-o", output], "several images"),
        (["fit-metric", "--views", files / "photos.h5", "-o", output], "is not a view"),
        ([*good, "--labels", files / "labels of others.csv"], "has none of the images"),
        ([*good, "--labels", files / "no labels.csv"], "needs columns path and label"),
        ([*good, "--labels", files / "none.csv"], "no such file"),
        ([*good, "--views", files / "other.h5"], "images of one size"),
        ([*good[:3], "-o", files / "out.npy"], "not a .safetensors file"),
        ([*good[:3], "-o", files / "no" / "out.safetensors"], "not a .safetensors file"),
    ):
        assert message in error_of(capsys, *arguments)
    assert not output.exists()


def test_from_the_command_line_lists_are_in_the_metric(
    service: RunningService, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`locore rerank` finds the shortlist and its cosines by the metric; what the service that has
    the metric makes of the same images is the same."""
    path = folder / "shop.metric.safetensors"
    metric = load_metric(path)
    ids = [f"file/{n}-1.jpg" for n in range(9)]
    write_descriptors(tmp_path / "gallery.h5", ids, seed=6)
    write_descriptors(tmp_path / "query.h5", ["query/q-1.jpg"], seed=7)
    with (
        DescriptorReader(tmp_path / "gallery.h5") as reader,
        DescriptorReader(tmp_path / "query.h5") as queries,
    ):
        images, asked = dict(reader), queries[0]
    for collection in ("shop", "plain"):
        assert service.register(images, collection=collection).is_success
    wanted = cosines(asked, images, metric)
    common = ["rerank", tmp_path / "query.h5", "--gallery", tmp_path / "gallery.h5"]
    to_service = ["--url", service.url, "--alpha", 1, "--json", "--top", 5]
    for collection in ("shop", "plain"):
        told = [*to_service, "--collection", collection, "--metric", path]
        answer = json.loads(output_of(capsys, *common, *told))
        assert [r["id"] for r in answer["results"]] == by(wanted)[:5]
        assert [r["index"] for r in answer["results"]] == list(range(5))
    with_ids = ["rerank", tmp_path / "query.h5", "--ids", tmp_path / "x", "--metric", path]
    assert "--metric needs --gallery" in error_of(capsys, *with_ids)
    other = tmp_path / "other.safetensors"
    write_metric(other, type(SIZES)(9, 12))
    assert "but the metric is for" in error_of(capsys, *common, "--metric", other)
