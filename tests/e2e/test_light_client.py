"""The client by itself: what it imports, and its own tests against a real service, here and where
nothing else is installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.service import RunningService, running

CLIENT = Path(__file__).parents[2] / "client"


@pytest.fixture(scope="module")
def service(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """With an extractor."""
    data = tmp_path_factory.mktemp("data")
    with running(checkpoint, data, extractor="efficientnet-lite0") as started:
        yield started


def ran(*command: str | Path, **environment: str) -> str:
    variables = {name: os.environ[name] for name in os.environ if not name.startswith("LOCORE_")}
    process = subprocess.run(
        command, capture_output=True, text=True, timeout=500, env=variables | environment
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def test_it_imports_neither_the_service_nor_the_model() -> None:
    program = "import locore_client, sys; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = set(ran(sys.executable, "-c", program).split())
    assert "locore_client" in loaded
    assert not loaded & {"torch", "service", "model", "fastapi", "redis", "tenacity"}


@pytest.mark.timeout(300)
def test_its_tests_pass_against_a_service(service: RunningService) -> None:
    tests = [str(CLIENT / "tests" / name) for name in ("test_service.py", "test_readme.py")]
    options = ("-q", "-p", "no:cacheprovider")
    output = ran(sys.executable, "-m", "pytest", *options, *tests, LOCORE_URL=service.url)
    assert "skipped" not in output


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("bound", ["newest", "oldest"])
def test_it_installs_and_works_where_nothing_else_is(
    bound: str, service: RunningService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Takes packages from PyPI, the newest or the oldest that its ranges allow."""
    project = tomllib.loads((CLIENT / "pyproject.toml").read_text())["project"]
    wanted = [
        re.sub(r">=([\d.]+).*", r"==\1.*", line) if bound == "oldest" else line
        for line in project["dependencies"]
    ]
    python = tmp_path / "venv" / "bin" / "python"
    ran(sys.executable, "-m", "venv", tmp_path / "venv")
    monkeypatch.chdir(tmp_path)
    elsewhere = {"PYTHONPATH": "", "PIP_CONSTRAINT": ""}
    # A build writes beside what it builds.
    source = shutil.copytree(CLIENT, tmp_path / "client", ignore=shutil.ignore_patterns("build"))
    ran(python, "-m", "pip", "install", "--quiet", f"{source}[test]", *wanted, **elsewhere)
    for absent in ("torch", "service", "model", "fastapi", "redis"):
        with pytest.raises(AssertionError, match="ModuleNotFoundError"):
            ran(python, "-c", f"import {absent}", **elsewhere)
    where = ran(python, "-c", "import locore_client; print(locore_client.__path__)", **elsewhere)
    assert "site-packages" in where
    tests = source / "tests"
    options = ("-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(tmp_path))
    output = ran(python, "-m", "pytest", *options, str(tests), LOCORE_URL=service.url, **elsewhere)
    assert "passed" in output
    assert "skipped" not in output
