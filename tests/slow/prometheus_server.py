"""A real Prometheus on loopback."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.e2e.service import free_port
from tests.slow.deploy_tools import comes_true, tool


class Prometheus:
    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    @property
    def ready(self) -> bool:
        try:
            return self._http.get("/-/ready").is_success
        except httpx.HTTPError:
            return False

    def api(self, path: str, **parameters: str) -> Any:
        answer = self._http.get(f"/api/v1/{path}", params=parameters).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of every series of an instant query."""
        result = self.api("query", query=expression)["result"]
        return [(series["metric"], float(series["value"][1])) for series in result]

    def values(self, expression: str) -> list[float]:
        return [value for _, value in self.query(expression)]


@contextmanager
def prometheus(config: dict[str, Any], folder: Path) -> Iterator[Prometheus]:
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    command = [
        tool("prometheus"),
        f"--config.file={file}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
    ]
    log = folder / "prometheus.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stderr=output, cwd=folder)
    try:
        with httpx.Client(base_url=f"http://{address}", timeout=10) as http:
            started = Prometheus(http)
            assert comes_true(lambda: started.ready, 30), log.read_text()
            yield started
    finally:
        process.terminate()
        process.wait(30)
