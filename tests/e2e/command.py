"""The console script: in this process, where that will do (one of its own takes seconds to start),
or as a program."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.cli import main
from tests.e2e.service import LOCORE


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


def done_here(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What it said and showed, each run of white space as one space."""
    code, out, err = run_here(capsys, *arguments)
    assert code == 0, err
    return " ".join((out + err).split())


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that a user's error leaves."""
    code, out, err = run_here(capsys, *arguments)
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("locore: ")
    return line


def locore(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {n: v for n, v in os.environ.items() if not n.startswith("LOCORE_")}
    return subprocess.run(
        [LOCORE, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=110,
        cwd=cwd,
        env=environment | {"OMP_NUM_THREADS": "1", "COLUMNS": "120"},
    )


def succeeded(*arguments: object, cwd: Path | None = None) -> str:
    done = locore(*arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def failed(*arguments: object, cwd: Path | None = None) -> str:
    """The one line that a user's error leaves, with exit code 2."""
    done = locore(*arguments, cwd=cwd)
    assert done.returncode == 2, (done.returncode, done.stderr)
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("locore: ")
    return line
