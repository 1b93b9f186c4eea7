"""The code of docs/client.md, run in its order."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import locore_client as client_package
from locore_client import ERRORS
from tests.descriptor_files import write_descriptors
from tests.e2e.service import running
from tests.factories import image, tiny_config

PAGE = (Path(__file__).parents[2] / "docs" / "client.md").read_text()


@pytest.mark.slow
def test_the_page_s_code_runs(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, rng = tiny_config(), np.random.default_rng(0)
    first, second, query = (image(rng, config) for _ in range(3))
    write_descriptors(tmp_path / "shop.h5", ["x-1", "x-2", "y-1"])
    known: dict[str, Any] = {
        "locals_a": first.locals,
        "scales_a": first.scales,
        "global_a": first.global_,
        "locals_b": second.locals,
        "query": query,
        "file": tmp_path / "shop.h5",
    }
    with running(checkpoint, tmp_path / "data") as service:
        for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
            exec(block.replace("http://127.0.0.1:8000", service.url), known)  # noqa: S102
    *ranked, bulk, missing, together = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in ranked} == {"a", "b"}
    assert (bulk, missing) == ("3 3", "['nobody'] order-17")
    assert together == "50 ['a', 'b']"


def test_the_page_names_every_error() -> None:
    kinds = {name for name in client_package.__all__ if name.endswith("Error")}
    assert kinds <= set(re.findall(r"`(\w+Error)`", PAGE))
    assert set(ERRORS) <= set(re.findall(r"`(\w+)`", PAGE))
