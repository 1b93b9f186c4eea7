"""A real service in a process of its own, with a real Valkey."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from locore_client import packed_image, rerank_body
from model.descriptors import ImageDescriptors
from service.gallery.record import DEFAULT_STORE_DTYPE, as_stored

LOCORE = str(Path(sys.executable).with_name("locore"))


class RunningService:
    """`http` talks to it; `process` is there to be killed."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, log: Path) -> None:
        self.process = process
        self.url = url
        self.http = httpx.Client(base_url=url, timeout=60, trust_env=False)
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text()

    def register(self, images: dict[str, ImageDescriptors], **options: Any) -> httpx.Response:
        listed = [{"id": i, **packed_image(image)} for i, image in images.items()]
        return self.http.post("/gallery", json={"images": listed, **options})

    def rerank(self, query: ImageDescriptors, ids: list[str], **options: Any) -> httpx.Response:
        collection = options.pop("collection", "default")
        return self.http.post("/rerank", json=rerank_body(query, ids, collection, **options))

    def metric(self, sample: str) -> float:
        """The value of a series, named as in the exposition text."""
        for line in self.http.get("/metrics").text.splitlines():
            name, _, value = line.rpartition(" ")
            if name == sample:
                return float(value)
        raise KeyError(sample)

    def stop(self, sig: int = signal.SIGTERM) -> int:
        self.process.send_signal(sig)
        return self.process.wait(30)


OnRedis = tuple[RunningService, int]
"""A service whose store is a test's to start, and the port of that store."""


@contextmanager
def running(
    checkpoint: Path,
    data_dir: Path,
    *,
    port: int | None = None,
    command: Sequence[str] = (LOCORE, "serve"),
    **settings: object,
) -> Iterator[RunningService]:
    """`settings` by their names in `service.settings`, as environment variables."""
    port = port or free_port()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("LOCORE_")},
        "LOCORE_CHECKPOINT": str(checkpoint),
        "LOCORE_DATA_DIR": str(data_dir),
        "LOCORE_DEVICE": "cpu",
        "LOCORE_PORT": str(port),
        "LOCORE_LOG_FORMAT": "json",
        # The tests' models are tiny: more threads would only wait for each other.
        "OMP_NUM_THREADS": "1",
        **{f"LOCORE_{name.upper()}": str(value) for name, value in settings.items()},
    }
    data_dir.mkdir(parents=True, exist_ok=True)
    log = data_dir / f"service-{time.monotonic_ns()}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stderr=output)
    service = RunningService(process, f"http://127.0.0.1:{port}", log)
    try:
        wait_until_ready(service)
        yield service
    finally:
        service.http.close()
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_ready(service: RunningService, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if service.process.poll() is not None:
            raise AssertionError(f"the service ended: {service.log}")
        with contextlib.suppress(httpx.HTTPError):
            if service.http.get("/health/ready").is_success:
                return
        time.sleep(0.05)
    raise AssertionError(f"the service is not ready: {service.log}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def code_of(response: httpx.Response) -> tuple[int, str]:
    """(status, error code), after checking the one shape that errors have."""
    body = response.json()
    assert set(body) == {"error"}, body
    assert set(body["error"]) == {"code", "message", "details"}
    assert body["error"]["message"]
    assert response.headers["X-Request-ID"]
    return response.status_code, body["error"]["code"]


def ids_of(response: httpx.Response) -> list[str]:
    assert response.status_code == 200, response.text
    return [result["id"] for result in response.json()["results"]]


def scores_of(response: httpx.Response) -> dict[str, float]:
    assert response.status_code == 200, response.text
    return {r["id"]: r["relevance_score"] for r in response.json()["results"]}


def stored(image: ImageDescriptors) -> ImageDescriptors:
    """An image as the store gives it back by default."""
    return as_stored({"": image}, DEFAULT_STORE_DTYPE)[""]
