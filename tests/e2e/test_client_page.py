"""The code of docs/client.md, run in its order."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import locore_client as client_package
from images import picture
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
        "photos": tmp_path / "photos",
    }
    (tmp_path / "photos").mkdir()
    for seed, name in enumerate(("cup", "mug")):
        (tmp_path / "photos" / f"{name}.png").write_bytes(picture(seed))
    with running(checkpoint, tmp_path / "data", extractor="efficientnet-lite0") as service:
        for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
            exec(block.replace("http://127.0.0.1:8000", service.url), known)  # noqa: S102
    printed = capsys.readouterr().out.splitlines()
    ranked, bulk, similar = printed[:2], printed[2], printed[3:-4]
    best, swapped, missing, together = printed[-4:]
    assert {line.split()[0] for line in ranked} == {"a", "b"}
    assert set(similar) <= {"cup.png", "mug.png"}
    assert best in {"cup.png", "mug.png"}
    assert swapped == "shop-1 ['shop-2']"
    assert (bulk, missing) == ("3 3", "['nobody'] order-17")
    assert together == "50 ['a', 'b']"


def test_the_page_names_every_error() -> None:
    kinds = {name for name in client_package.__all__ if name.endswith("Error")}
    assert kinds <= set(re.findall(r"`(\w+Error)`", PAGE))
    assert set(ERRORS) <= set(re.findall(r"`(\w+)`", PAGE))
