"""Dockerfile and compose file: what they promise and can be read off them."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def requirements(extras: str) -> list[str]:
    """What the image installs beside torch and us."""
    script = str(ROOT / "deploy/container/requirements.py")
    ran = subprocess.run(
        [sys.executable, script, extras], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return ran.stdout.split()


def names(lines: list[str]) -> set[str]:
    """Of the packages that requirements ask for."""
    return {re.split("[<>=]", line)[0] for line in lines}


def test_what_is_copied_is_there_and_not_ignored() -> None:
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
        for source in line.split()[:-1]
    ]
    assert "model" in copied
    allowed = (ROOT / ".dockerignore").read_text().splitlines()
    for source in copied:
        assert (ROOT / source).exists()
        assert f"!{source}" in allowed
    assert {line[1:] for line in allowed if line.startswith("!")} == set(copied)
    # The last word is for caches, the first for everything.
    assert next(line for line in allowed if line and line[0] not in "!#") == "*"


def test_every_version_is_pinned() -> None:
    image = re.findall(r"^ARG PYTHON_IMAGE=python:(\S+)$", DOCKERFILE, re.MULTILINE)
    assert re.fullmatch(r"3\.11\.\d+-slim-bookworm", image[0])
    assert set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) == {"${PYTHON_IMAGE}"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    constraints = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines()
    )
    assert f"ARG TORCH={constraints['torch']}+cpu\n" in DOCKERFILE
    assert "PIP_CONSTRAINT=/build/constraints.txt" in DOCKERFILE
    wanted = requirements("extract,cuda")
    # The client comes without its dependencies: they are the service's too.
    client = tomllib.loads((ROOT / "client/pyproject.toml").read_text())["project"]
    assert names(client["dependencies"]) <= names(wanted)
    extras = project["optional-dependencies"]
    everything = [*project["dependencies"], *extras["extract"], *extras["cuda"]]
    assert names(wanted) == names(everything) - {"torch", client["name"]}
    assert names(wanted) <= {name.lower().replace("_", "-") for name in constraints}
    # The one package that pip installs without its dependencies.
    script = (ROOT / "deploy/container/mamba.sh").read_text()
    assert re.findall(r"mamba-ssm==(\S+)$", script, re.MULTILINE) == [constraints["mamba_ssm"]]


def test_an_unknown_extra_is_one_line() -> None:
    with pytest.raises(subprocess.CalledProcessError) as failed:
        requirements("extract,wings")
    assert failed.value.stderr == "pyproject.toml has no extra wings\n"


def test_the_image_is_not_run_as_root_and_says_how_it_is() -> None:
    last = DOCKERFILE.rpartition("\nFROM ")[2]
    assert "USER 10001:10001" in last
    assert "/health/ready" in last
    assert "LOCORE_HOST=0.0.0.0" in last
    assert "VOLUME /data" in last


def test_every_container_is_checked_bounded_and_started_again() -> None:
    for name, service in SERVICES.items():
        assert service["restart"] == "unless-stopped", name
        assert {"cpus", "memory"} <= set(service["deploy"]["resources"]["limits"]), name
        # The service's own is in its image.
        assert name == "locore" or service["healthcheck"]["test"], name
        for port in service.get("ports", ()):
            assert port.startswith(("127.0.0.1:", "${LOCORE_PUBLISH:-127.0.0.1}:")), port


def test_the_gallery_is_kept_and_never_evicted() -> None:
    redis = SERVICES["redis"]
    options = dict(zip(redis["command"][1::2], redis["command"][2::2], strict=True))
    assert options["--appendonly"] == "yes"
    assert options["--maxmemory-policy"] == "noeviction"
    assert "--maxmemory" in options
    assert any(volume.startswith("gallery:") for volume in redis["volumes"])
    assert "ports" not in redis
    assert COMPOSE["networks"][redis["networks"][0]]["internal"] is True
    assert SERVICES["locore"]["environment"]["LOCORE_REDIS_URL"].startswith("redis://redis:6379")


def test_what_is_mounted_is_there() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert source in COMPOSE["volumes"] or (ROOT / source).exists(), source


def test_the_dashboard_lies_where_grafana_looks() -> None:
    mounts = dict(volume.split(":")[:2][::-1] for volume in SERVICES["grafana"]["volumes"])
    provider = ROOT / "deploy/grafana/provisioning/dashboards/locore.yml"
    (looked_in,) = [
        provider["options"]["path"]
        for provider in yaml.safe_load(provider.read_text())["providers"]
    ]
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert Path(home).parent == Path(looked_in)
    assert (ROOT / mounts[looked_in] / Path(home).name).is_file()


def test_a_container_may_drain() -> None:
    service = SERVICES["locore"]
    drained = int(service["environment"]["LOCORE_DRAIN_SECONDS"])
    assert int(service["stop_grace_period"].removesuffix("s")) >= drained + 5


def test_what_the_packages_read_is_installed_with_them() -> None:
    """An editable install finds every file; the image holds those that pyproject.toml names."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    code = {".py", ".pyc", ".sh"}
    for package in ("model", "service"):
        folder = ROOT / package
        patterns = settings["package-data"].get(package, [])
        named = {path for pattern in patterns for path in folder.glob(pattern)}
        data = {p for p in folder.rglob("*") if p.is_file() and p.suffix not in code}
        assert data <= named, sorted(str(path) for path in data - named)
