from __future__ import annotations

import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_its_example_runs(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(program.replace("http://127.0.0.1:8000", url), {})  # noqa: S102
    assert capsys.readouterr().out.count("image-") == 3
