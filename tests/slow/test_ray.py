"""The service on a real Ray Serve, and re-ranking from files as a real Ray Data job."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from locore_client import packed_image
from model.descriptors import ImageDescriptors
from tests.batch_files import made_up_lists, read_lines, write_images, write_lines
from tests.e2e.service import (
    LOCORE,
    RunningService,
    code_of,
    free_port,
    ids_of,
    running,
    scores_of,
)
from tests.e2e.valkey import plain_valkey
from tests.factories import image, tiny_config
from tests.slow.deploy_tools import ROOT, comes_true
from tests.slow.ray_cluster import BIN, RayCluster, environment, ray_cluster
from tests.slow.ray_serving import Load, Served, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

CONFIG = tiny_config()


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with ray_cluster() as started:
        yield started


def test_a_ray_data_job_writes_what_the_command_writes(
    cluster: RayCluster, checkpoint: Path, tmp_path: Path
) -> None:
    queries, gallery = [f"q/{n}" for n in range(40)], [f"g/{n}" for n in range(200)]
    write_images(tmp_path / "queries.h5", queries, seed=1)
    write_images(tmp_path / "gallery.h5", gallery, seed=2)
    lists = made_up_lists(queries, [*gallery, "nobody"], 150)
    (tmp_path / "lists").mkdir()
    for part in range(2):
        write_lines(tmp_path / "lists" / f"{part}.jsonl", lists[part::2])
    write_lines(tmp_path / "lists.jsonl", lists)
    common: list[object] = [
        *("--queries", tmp_path / "queries.h5", "--gallery", tmp_path / "gallery.h5"),
        *("--checkpoint", checkpoint, "--on-missing", "skip", "--window", "60", "--stride", "30"),
    ]
    searched = tmp_path / "found.jsonl"
    one = ["--shortlists", tmp_path / "lists.jsonl", "-o", searched, "--device", "cpu"]
    command = [LOCORE, "rerank-batch", *common, *one]
    subprocess.run(list(map(str, command)), env=environment(), check=True)
    job: list[object] = [BIN / "python", "-m", "deploy.ray.rerank_batch", *common]
    actors = ["--actors", "2", "--cpus", "0.5", "--lists", "8"]
    folder = tmp_path / "by-ray"
    many = ["--shortlists", tmp_path / "lists", "-o", folder, *actors]
    with cluster.running(*job, *many) as process:
        assert process.wait(200) == 0, cluster.log.read_text()[-5000:]
    expected = {line["query"]: line for line in read_lines(searched)}
    by_ray = [line for path in folder.iterdir() for line in read_lines(path)]
    assert sorted(line["query"] for line in by_ray) == sorted(queries)
    assert any(line["missing"] for line in by_ray)
    for line in by_ray:
        other = expected[line["query"]]
        assert line["missing"] == other["missing"]
        for field in ("id", "index"):
            assert [r[field] for r in line["results"]] == [r[field] for r in other["results"]]
        scores = [[r["relevance_score"] for r in one["results"]] for one in (line, other)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-4)
    assert refused(*job, *many) == f"locore: {folder}: exists already"
    strict = ["--shortlists", tmp_path / "lists", "-o", tmp_path / "no", "--on-missing", "error"]
    with cluster.running(*job, *strict, *actors) as process:
        assert process.wait(200) == 1
    output = cluster.log.read_text().splitlines()
    assert any(re.match(r"locore: .*gallery.h5: has no descriptors of 1 images", s) for s in output)


def refused(*command: object) -> str:
    """The last line that a program of Ray's environment leaves when it cannot begin."""
    process = subprocess.run(
        [str(part) for part in command], cwd=ROOT, env=environment(), capture_output=True, text=True
    )
    assert process.returncode in (1, 2)
    assert "Traceback" not in process.stderr
    return process.stderr.splitlines()[-1]


def test_a_store_for_one_replica_alone_is_refused() -> None:
    message = refused(BIN / "serve", "run", "deploy.ray.serve:app")
    assert message.startswith("Error: LOCORE_REDIS_URL: replicas share a Redis")
    message = refused(BIN / "serve", "run", "deploy.ray.serve:app", "redis_url=nowhere")
    assert "LOCORE_REDIS_URL" in message


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    with plain_valkey(port, tmp_path_factory.mktemp("valkey")):
        yield f"redis://127.0.0.1:{port}/0"


@pytest.fixture(scope="module")
def gallery() -> dict[str, ImageDescriptors]:
    rng = np.random.default_rng(0)
    return {f"image-{n}": image(rng, CONFIG, int(rng.integers(1, 7))) for n in range(200)}


@pytest.fixture(scope="module")
def query() -> ImageDescriptors:
    return image(np.random.default_rng(1), CONFIG)


@pytest.fixture(scope="module")
def served(
    cluster: RayCluster,
    redis_url: str,
    checkpoint: Path,
    gallery: dict[str, ImageDescriptors],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Served]:
    with serving(cluster, redis_url, checkpoint, tmp_path_factory.mktemp("serve")) as started:
        images = [{"id": i, **packed_image(one)} for i, one in gallery.items()]
        assert started.http.post("/gallery", json={"images": images}).is_success
        yield started


@pytest.fixture(scope="module")
def plain(
    redis_url: str, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningService]:
    """A service without Ray on the same Redis."""
    folder = tmp_path_factory.mktemp("plain")
    with running(checkpoint, folder, redis_url=redis_url) as started:
        yield started


def test_it_answers_as_a_plain_service_does(
    served: Served,
    plain: RunningService,
    gallery: dict[str, ImageDescriptors],
    query: ImageDescriptors,
) -> None:
    for count in (1, 60, 200):
        ids = list(gallery)[:count]
        answer, expected = served.rerank(query, ids), plain.rerank(query, ids)
        assert ids_of(answer) == ids_of(expected)
        assert scores_of(answer) == pytest.approx(scores_of(expected), abs=1e-4)
    assert answer.headers.get_list("X-Request-ID") == [answer.json()["id"]]
    assert code_of(served.rerank(query, ["nobody"])) == (404, "gallery_ids_missing")
    assert code_of(served.http.get("/nowhere")) == (404, "not_found")
    own = served.http.get("/health/live", headers={"X-Request-ID": "mine"})
    assert own.headers.get_list("X-Request-ID") == ["mine"]
    assert "<title>" in served.http.get("/").text


def test_it_grows_under_load_and_outlives_a_replica(
    served: Served, gallery: dict[str, ImageDescriptors], query: ImageDescriptors
) -> None:
    assert len(served.by_replica("locore_ready")) == 1
    clients = 8
    with Load(served, query, list(gallery)).of(clients) as load:
        assert comes_true(lambda: len(served.by_replica("locore_ready")) == 2, 120)
        ok = 'locore_requests_total{endpoint="rerank",status="200"}'
        # Both do some of the work.
        assert comes_true(lambda: sum(n > 0 for n in served.by_replica(ok).values()) == 2, 30)
        assert set(load.answers) == {200}
        before = served.replicas
        assert len(before) == 2
        os.kill(before[0], signal.SIGKILL)
        answered = load.answers[200]
        assert comes_true(lambda: load.answers[200] > answered + 50, 30)
        assert comes_true(
            lambda: len(served.replicas) == 2 and before[0] not in served.replicas, 120
        )
        assert comes_true(lambda: len(served.by_replica("locore_ready")) == 2, 60)
        lost = sum(load.answers.values()) - load.answers[200]
        answered = load.answers[200]
        assert comes_true(lambda: load.answers[200] > answered + 50, 30)
    # Only what the killed one had in its hands.
    assert lost <= clients
    assert sum(load.answers.values()) - load.answers[200] == lost
    assert len(load.orders) == 1


def test_a_stop_waits_for_what_is_being_answered(
    served: Served,
    gallery: dict[str, ImageDescriptors],
    query: ImageDescriptors,
    tmp_path: Path,
) -> None:
    """The last test: nothing is served after it."""
    ids = list(gallery)
    slow = {"window": 20, "stride": 1, "direction": "end-to-start-to-end", "timeout_ms": 60_000}
    with (
        ThreadPoolExecutor(6) as pool,
        served.cluster.running(BIN / "python", "-c", STOP, tmp_path / "go") as process,
    ):
        assert comes_true(lambda: "connected\n" in served.cluster.log.read_text(), 60)
        waiting = [pool.submit(served.rerank, query, ids, **slow) for _ in range(6)]
        assert comes_true(lambda: sum(served.by_replica("locore_queue_tokens").values()) > 0, 10)
        (tmp_path / "go").touch()
        assert comes_true(lambda: "deleting\n" in served.cluster.log.read_text(), 10)
        assert not all(answer.done() for answer in waiting)
        assert [len(ids_of(answer.result())) for answer in waiting] == [len(ids)] * 6
        assert process.wait(60) == 0
    assert comes_true(lambda: not served.replicas, 10)


STOP = """
import pathlib, sys, time
from ray import serve
serve.status()
print("connected", flush=True)
while not pathlib.Path(sys.argv[1]).exists():
    time.sleep(0.01)
print("deleting", flush=True)
serve.delete("locore")
"""
"""What docs/ray.md says, once the time has come: to import Ray takes longer than the requests."""
