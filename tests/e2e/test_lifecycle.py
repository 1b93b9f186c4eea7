"""Starting, draining, being killed and coming back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from locore_client import rerank_body
from model.descriptors import ImageDescriptors
from service.watch.metrics import (
    ENDPOINTS,
    REJECTIONS,
    STAGES,
    STATUSES,
    STORE_OPERATIONS,
)
from tests.e2e.service import (
    LOCORE,
    RunningService,
    code_of,
    free_port,
    ids_of,
    running,
    wait_until_ready,
)
from tests.processes import MODEL, children, gone

Images = dict[str, ImageDescriptors]


def slow_request(
    service: RunningService,
    pool: ThreadPoolExecutor,
    query: ImageDescriptors,
    gallery: Images,
    **options: Any,
) -> Future[httpx.Response]:
    """A request of some hundred forward passes, one after another, that has begun."""
    images = dict(list(gallery.items())[:210])
    assert service.register(images).is_success
    options = {"window": 2, "stride": 1, "timeout_ms": 60_000} | options
    body = rerank_body(query, list(images), "default", **options)
    slow = pool.submit(httpx.post, f"{service.url}/rerank", json=body, timeout=60)
    while not service.metric("locore_queue_tokens"):
        assert not slow.done()
    return slow


@pytest.mark.slow
@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGKILL])
def test_a_restart_loses_no_registered_image(
    checkpoint: Path, tmp_path: Path, gallery: Images, query: ImageDescriptors, sig: int
) -> None:
    images = dict(list(gallery.items())[:200])
    with running(checkpoint, tmp_path) as service:
        assert service.register(images).is_success
        before = service.rerank(query, list(images)).json()["results"]
        code = service.stop(sig)
        assert code == (0 if sig == signal.SIGTERM else -signal.SIGKILL)
    with running(checkpoint, tmp_path) as service:
        assert service.http.get("/gallery").json()["count"] == 200
        after = service.rerank(query, list(images)).json()["results"]
        assert [r["id"] for r in after] == [r["id"] for r in before]


def test_a_model_that_dies_is_replaced_and_ends_with_its_service(
    checkpoint: Path, tmp_path: Path, gallery: Images, query: ImageDescriptors
) -> None:
    images = dict(list(gallery.items())[:20])
    with running(checkpoint, tmp_path) as service:
        assert service.register(images).is_success
        before = service.rerank(query, list(images)).json()["results"]
        (model,) = children(service.process.pid, MODEL)
        os.kill(model, signal.SIGKILL)
        assert gone(model)
        # This one finds the model dead.
        assert service.rerank(query, list(images)).status_code in (200, 500)
        wait_until_ready(service)
        after = service.rerank(query, list(images)).json()["results"]
        assert after == before
        (another,) = children(service.process.pid, MODEL)
        assert service.stop(signal.SIGKILL) == -signal.SIGKILL
        assert gone(another)


def test_sigterm_lets_what_runs_finish_and_refuses_what_is_new(
    checkpoint: Path, tmp_path: Path, gallery: Images, query: ImageDescriptors
) -> None:
    with running(checkpoint, tmp_path) as service, ThreadPoolExecutor(1) as pool:
        slow = slow_request(service, pool, query, gallery)
        service.process.terminate()
        refused = 200
        while refused != 503 and not slow.done():
            refused = service.rerank(query, ["image-000"]).status_code
        assert refused == 503
        answer = service.rerank(query, ["image-000"])
        assert code_of(answer) == (503, "shutting_down")
        assert int(answer.headers["Retry-After"]) >= 1
        assert code_of(service.http.get("/health/ready")) == (503, "shutting_down")
        assert service.http.get("/health/live").status_code == 200
        assert len(ids_of(slow.result())) == 210
        assert service.process.wait(20) == 0
        assert not list(tmp_path.rglob("valkey.sock"))


def test_what_outlives_the_drain_is_told(
    checkpoint: Path, tmp_path: Path, gallery: Images, query: ImageDescriptors
) -> None:
    with (
        running(checkpoint, tmp_path, drain_seconds=0) as service,
        ThreadPoolExecutor(1) as pool,
    ):
        slow = slow_request(service, pool, query, gallery, direction="end-to-start-to-end")
        service.process.terminate()
        assert code_of(slow.result()) == (503, "shutting_down")
        assert service.process.wait(20) == 0


def test_a_second_sigterm_ends_the_drain_and_leaves_nothing_behind(
    checkpoint: Path, tmp_path: Path, gallery: Images, query: ImageDescriptors
) -> None:
    with running(checkpoint, tmp_path) as service, ThreadPoolExecutor(1) as pool:
        slow = slow_request(service, pool, query, gallery, direction="end-to-start-to-end")
        service.process.terminate()
        while service.http.get("/health/ready").status_code != 503:
            assert not slow.done()
        service.process.terminate()
        assert code_of(slow.result()) == (503, "shutting_down")
        assert service.process.wait(20) == 0
        assert not list(tmp_path.rglob("valkey.sock"))


def test_sigterm_while_starting_leaves_nothing_behind(checkpoint: Path, tmp_path: Path) -> None:
    arguments = ["--checkpoint", checkpoint, "--data-dir", tmp_path, "--port", free_port()]
    process = subprocess.Popen([LOCORE, "serve", *map(str, arguments)], stderr=subprocess.PIPE)
    while not list(tmp_path.rglob("valkey.log")):
        assert process.poll() is None
    process.terminate()
    assert process.wait(20) == 0
    assert not list(tmp_path.rglob("valkey.sock"))


@pytest.fixture(scope="module")
def left_behind(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The first metrics and the whole log of a service that was asked one thing."""
    with running(checkpoint, tmp_path_factory.mktemp("left")) as service:
        metrics = service.http.get("/metrics").text
        service.http.get("/gallery", headers={"X-Request-ID": "find-me"})
        service.stop()
        return metrics, service.log


def test_the_log_is_json_with_the_request_id(left_behind: tuple[str, str]) -> None:
    lines = [json.loads(line) for line in left_behind[1].splitlines()]
    assert all({"event", "level", "timestamp"} <= set(line) for line in lines)
    (access,) = [line for line in lines if line.get("request_id") == "find-me"]
    assert (access["path"], access["status"]) == ("/gallery", 200)
    (ready,) = [line for line in lines if line["event"] == "ready"]
    assert (ready["kernel"], ready["device"], ready["store"]) == ("plain", "cpu", "embedded")


def test_every_series_is_there_from_the_start(left_behind: tuple[str, str]) -> None:
    expected = [f'locore_stage_duration_seconds_count{{stage="{s}"}}' for s in STAGES]
    expected += [f'locore_rejected_total{{reason="{r}"}}' for r in REJECTIONS]
    expected += [
        f'locore_store_duration_seconds_count{{operation="{o}"}}' for o in STORE_OPERATIONS
    ]
    expected += [f'locore_cache_requests_total{{result="{r}"}}' for r in ("hit", "miss")]
    expected += [f'locore_request_duration_seconds_count{{endpoint="{e}"}}' for e in ENDPOINTS]
    expected += [
        f'locore_requests_total{{endpoint="{e}",status="{s}"}}' for e in ENDPOINTS for s in STATUSES
    ]
    expected += [
        "locore_batch_windows_count",
        "locore_batch_tokens_count",
        "locore_batch_padding_ratio_count",
        "locore_queue_tokens",
        "locore_inflight_requests",
        "locore_cache_bytes",
        "locore_store_up",
        "locore_gallery_images_registered_total",
        'locore_model_info{checkpoint="tiny",device="cpu",dtype="float32",kernel="plain"} 1.0',
    ]
    lines = left_behind[0].splitlines()
    absent = [name for name in expected if not any(line.startswith(name) for line in lines)]
    assert not absent


def test_no_label_takes_a_value_that_a_client_chooses(
    service: RunningService, query: ImageDescriptors
) -> None:
    mark = "chosen-by-the-client"
    service.http.get(f"/{mark}")
    service.http.get(f"/gallery/{mark}", params={"collection": mark})
    service.http.request("GET", "/health/live", headers={"X-Request-ID": mark})
    service.rerank(query, [mark], collection=mark)
    assert mark not in service.http.get("/metrics").text


@pytest.mark.slow
def test_two_services_do_not_share_a_data_directory(checkpoint: Path, tmp_path: Path) -> None:
    with running(checkpoint, tmp_path):
        arguments = ["--data-dir", str(tmp_path), "--port", str(free_port())]
        second = subprocess.run(
            [LOCORE, "serve", "--checkpoint", str(checkpoint), *arguments],
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert second.returncode == 2
    assert "in use by another service" in second.stderr
    assert "Traceback" not in second.stderr


def test_a_service_starts_while_its_redis_is_away(checkpoint: Path, tmp_path: Path) -> None:
    port = free_port()
    settings = {"checkpoint": checkpoint, "port": port, "redis-url": "redis://127.0.0.1:1"}
    flags = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    process = subprocess.Popen([LOCORE, "serve", *flags], stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                answer = httpx.get(f"http://127.0.0.1:{port}/health/ready")
                break
            except httpx.ConnectError:
                time.sleep(0.1)
        assert code_of(answer) == (503, "store_unavailable")
    finally:
        process.terminate()
        assert process.wait(20) == 0
