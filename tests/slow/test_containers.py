"""The Dockerfile's steps run for real, and the service in the root that they leave."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
import yaml

from tests.e2e.service import free_port
from tests.e2e.valkey import plain_valkey
from tests.slow.deploy_tools import ROOT, comes_true, says, tool

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

STATE = ROOT / "build" / "container-check"
"""The base image stays here for the next time."""

USER = 10001
BASE_BYTES = 150_000_000
"""More than python:3.11-slim-bookworm takes, which cannot be fetched here."""


@dataclass(frozen=True)
class Image:
    root: Path
    config: dict[str, Any]

    def command(self, *arguments: str) -> list[str]:
        return [tool("chroot"), f"--userspec={self.config['User']}", str(self.root), *arguments]

    @property
    def environment(self) -> dict[str, str]:
        return dict(entry.split("=", 1) for entry in self.config["Env"])


def test_the_linters_are_content() -> None:
    says("hadolint", "Dockerfile")
    scripts = sorted((ROOT / "deploy").rglob("*.sh")) + sorted((ROOT / "tests/slow").glob("*.sh"))
    says("shellcheck", *scripts)
    says("check-jsonschema", "--builtin-schema", "vendor.compose-spec", "docker-compose.yml")


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    if os.geteuid():
        pytest.skip("buildah's chroot and debootstrap want root")
    tool("debootstrap")
    wheels = os.environ.get("PIP_FIND_LINKS", "")
    environment = dict(os.environ, WHEELS=wheels if Path(wheels).is_dir() else "")
    says_so = STATE / "check.log"
    STATE.mkdir(parents=True, exist_ok=True)
    with says_so.open("wb") as output:
        built = subprocess.run(
            [ROOT / "deploy/container/check.sh", STATE],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    assert built.returncode == 0, says_so.read_text()[-3000:]
    config = json.loads((STATE / "image.json").read_text())["Docker"]["config"]
    root = STATE / "image"
    # What a container engine mounts.
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
    subprocess.run(["mount", "-t", "proc", "proc", root / "proc"], check=True)
    try:
        yield Image(root, config)
    finally:
        subprocess.run(["umount", root / "proc"], check=True)
        shutil.rmtree(root)


def test_what_is_in_it(image: Image) -> None:
    installed = image.root / "opt/locore"
    # Hard links count once, as in a layer.
    counted = subprocess.run(
        ["du", "--summarize", "--bytes", installed], check=True, capture_output=True, text=True
    )
    assert int(counted.stdout.split()[0]) + BASE_BYTES < 1_500_000_000
    programs = {
        path.name for folder in ("bin", "usr/bin") for path in (image.root / folder).iterdir()
    }
    assert not programs & {"gcc", "g++", "cc", "make", "ld", "git", "curl"}
    assert not (installed / "bin/pip").exists()
    (checkpoint,) = installed.glob("lib/python3*/site-packages/model/weights/relations.safetensors")
    assert checkpoint.stat().st_size > 500_000
    assert not list(installed.glob("lib/python3*/site-packages/tests"))


def test_what_it_says_of_itself(image: Image) -> None:
    config = image.config
    assert config["User"] == f"{USER}:{USER}"
    assert (config["Entrypoint"], config["Cmd"]) == (["locore"], ["serve"])
    assert set(config["Volumes"]) == {"/data"}
    assert set(config["ExposedPorts"]) == {"8000/tcp"}
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    data = (image.root / "data").stat()
    assert (data.st_uid, data.st_gid) == (USER, USER)


def test_the_compose_files_service_answers(image: Image, tmp_path: Path) -> None:
    """The service and its Redis as the compose file starts them, engine and network aside: the
    image's user, its entry point, --sample, a Redis elsewhere, the health check, the drain."""
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    port, store = free_port(), free_port()
    environment = {
        **image.environment,
        "HOME": "/data",
        "OMP_NUM_THREADS": "1",
        "LOCORE_PORT": str(port),
        "LOCORE_REDIS_URL": f"redis://127.0.0.1:{store}/0",
    }
    command = image.command(*image.config["Entrypoint"], *compose["locore"]["command"])
    check = image.command(*image.config["Healthcheck"]["Test"][1:])
    with plain_valkey(store, tmp_path), (tmp_path / "log").open("wb") as log:
        with redis.Redis(port=store) as client:
            # The options of the compose file that can be set while it runs.
            client.config_set("maxmemory", "2gb")
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("appendonly", "yes")
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

        def healthy() -> bool:
            assert process.poll() is None, (tmp_path / "log").read_text()
            return subprocess.run(check, env=environment, stderr=log).returncode == 0

        try:
            assert subprocess.run(check, env=environment, stderr=log).returncode == 1
            assert comes_true(healthy, 240)
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:

                def registered() -> int:
                    page = http.get("/gallery", params={"collection": "sample", "limit": 1})
                    return int(page.json()["count"])

                assert comes_true(lambda: registered() == 264, 60)
                body = (image.root / "data/sample/rerank.json").read_bytes()
                results = http.post("/rerank", content=body).json()["results"]
                # The query is a view of retina-1; README shows this answer.
                assert {result["id"].split("/")[0] for result in results[:6]} == {"retina-1"}
                assert http.get("/").is_success
                assert "process_resident_memory_bytes" in http.get("/metrics").text
            process.send_signal(signal.SIGTERM)
            assert process.wait(40) == 0
        finally:
            process.kill()
            process.wait()
        folders = [
            path for path in image.root.iterdir() if path.name not in ("data", "proc", "tmp")
        ]
        written = [
            path for f in folders for path in (f, *f.rglob("*")) if path.lstat().st_uid == USER
        ]
        assert not written
        assert list((tmp_path / "appendonlydir").iterdir())
