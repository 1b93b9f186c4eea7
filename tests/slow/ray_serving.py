"""The service on a real Ray Serve, and clients that keep it busy."""

from __future__ import annotations

import re
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from locore_client import rerank_body
from model.descriptors import ImageDescriptors
from tests.e2e.service import free_port, ids_of
from tests.slow.deploy_tools import ROOT, comes_true
from tests.slow.ray_cluster import BIN, RayCluster

REPLICA = "ray::ServeReplica:locore"


class Load:
    """Clients that ask for one re-ranking after another; `answers` counts statuses."""

    def __init__(self, served: Served, query: ImageDescriptors, ids: list[str]) -> None:
        self._body = rerank_body(query, ids, "default")
        self._url = served.http.base_url
        self._stop = threading.Event()
        self.answers: Counter[int | str] = Counter()
        self.orders: set[tuple[str, ...]] = set()

    @contextmanager
    def of(self, clients: int) -> Iterator[Load]:
        with ThreadPoolExecutor(clients) as pool:
            for _ in range(clients):
                pool.submit(self._ask)
            try:
                yield self
            finally:
                self._stop.set()

    def _ask(self) -> None:
        with httpx.Client(base_url=self._url, timeout=60) as http:
            while not self._stop.is_set():
                try:
                    answer = http.post("/rerank", json=self._body)
                except httpx.HTTPError as error:
                    self.answers[type(error).__name__] += 1
                    continue
                self.answers[answer.status_code] += 1
                if answer.is_success:
                    self.orders.add(tuple(ids_of(answer)))


class Served:
    """What is behind Serve's proxy."""

    def __init__(self, url: str, cluster: RayCluster, process: subprocess.Popen[bytes]) -> None:
        self.http = httpx.Client(base_url=url, timeout=60)
        self.cluster = cluster
        self.process = process

    def rerank(self, query: ImageDescriptors, ids: list[str], **options: object) -> httpx.Response:
        return self.http.post("/rerank", json=rerank_body(query, ids, "default", **options))

    def ready(self) -> bool:
        assert self.process.poll() is None, self.cluster.log.read_text()[-5000:]
        try:
            return self.http.get("/health/ready").is_success
        except httpx.HTTPError:
            return False

    def by_replica(self, series: str) -> dict[str, float]:
        """The value of a series for every replica, with its labels as the service has them."""
        name, _, labels = series.rstrip("}").partition("{")
        more = "," + re.escape(labels) if labels else ""
        pattern = re.compile(rf'{name}{{instance="([^"]+)"{more}}} (\S+)')
        lines = self.http.get("/metrics").text.splitlines()
        return {m[1]: float(m[2]) for line in lines if (m := pattern.fullmatch(line))}

    @property
    def replicas(self) -> list[int]:
        return self.cluster.processes(REPLICA)


def config_for(port: int, redis_url: str, checkpoint: Path) -> dict[str, Any]:
    """The shipped configuration, quick to scale, and in the test's own place."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "deploy/ray/serve.yaml").read_text())
    config["http_options"] = {"host": "127.0.0.1", "port": port}
    (application,) = config["applications"]
    application["runtime_env"]["env_vars"] |= {
        "LOCORE_REDIS_URL": redis_url,
        "LOCORE_CHECKPOINT": str(checkpoint),
        "LOCORE_DEVICE": "cpu",
    }
    (deployment,) = application["deployments"]
    deployment["ray_actor_options"]["num_cpus"] = 0.5
    deployment["autoscaling_config"] |= {
        "max_replicas": 2,
        "target_ongoing_requests": 2,
        "look_back_period_s": 2,
        "upscale_delay_s": 1,
    }
    return config


@contextmanager
def serving(
    cluster: RayCluster, redis_url: str, checkpoint: Path, folder: Path
) -> Iterator[Served]:
    port = free_port()
    file = folder / "serve.yaml"
    file.write_text(yaml.safe_dump(config_for(port, redis_url, checkpoint)))
    with cluster.running(BIN / "serve", "run", file) as process:
        served = Served(f"http://127.0.0.1:{port}", cluster, process)
        assert comes_true(served.ready, 120), cluster.log.read_text()[-5000:]
        yield served
        served.http.close()
        # Ctrl-C: SIGTERM it does not hear for half a minute.
        process.send_signal(signal.SIGINT)
        process.wait(60)
