"""Runs the console script: in this process where possible, since a new process takes seconds to
start, or as a program."""

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
        with pytest.raises(SystemExit) as exit_info:
            main.run()
    finally:
        sys.argv = before
    captured = capsys.readouterr()
    assert isinstance(exit_info.value.code, int)
    return exit_info.value.code, captured.out, captured.err


def stdout_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Standard output, with single spaces; nothing may be on standard error."""
    code, out, err = run_here(capsys, *arguments)
    assert (code, err) == (0, "")
    return " ".join(out.split())


def output_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Standard output and error, with single spaces."""
    code, out, err = run_here(capsys, *arguments)
    assert code == 0, err
    return " ".join((out + err).split())


def error_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line of a user's error."""
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


def program_output(*arguments: object, cwd: Path | None = None) -> str:
    """Standard output and error."""
    process = locore(*arguments, cwd=cwd)
    assert process.returncode == 0, process.stderr
    return process.stdout + process.stderr


def program_error(*arguments: object, cwd: Path | None = None) -> str:
    """The one line of a user's error; the exit code is 2."""
    process = locore(*arguments, cwd=cwd)
    assert process.returncode == 2, (process.returncode, process.stderr)
    assert process.stdout == ""
    (line,) = process.stderr.splitlines()
    assert line.startswith("locore: ")
    return line
