"""A release has one version, `service.__version__`; what cannot read it says the same."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from service import __version__

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("file", "pattern"),
    [
        ("Dockerfile", r"ARG VERSION=(\S+)"),
        ("docker-compose.yml", r"image: locore:(\S+)"),
        ("deploy/kubernetes/overlays/cpu/kustomization.yaml", r"newTag: ([\w.]+)"),
        ("deploy/kubernetes/overlays/gpu/kustomization.yaml", r"newTag: ([\w.]+)-cuda"),
    ],
)
def test_what_is_deployed_is_this_version(file: str, pattern: str) -> None:
    assert re.findall(pattern, (ROOT / file).read_text()) == [__version__]


def test_the_client_of_this_version_is_asked_for() -> None:
    client = tomllib.loads((ROOT / "client" / "pyproject.toml").read_text())["project"]["version"]
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert f"locore-client=={client}" in ours
