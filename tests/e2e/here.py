"""The console script, run in this process: one of its own takes seconds to start."""

from __future__ import annotations

import sys

import pytest

from service.cli import main


def run_here(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, output and errors."""
    before, sys.argv = sys.argv, ["locore", *map(str, arguments)]
    try:
        with pytest.raises(SystemExit) as left:
            main.run()
    finally:
        sys.argv = before
    said = capsys.readouterr()
    assert isinstance(left.value.code, int)
    return left.value.code, said.out, said.err


def shown_here(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    code, out, err = run_here(capsys, *arguments)
    assert (code, err) == (0, "")
    return " ".join(out.split())


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that a user's error leaves."""
    code, out, err = run_here(capsys, *arguments)
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("locore: ")
    return line
