"""How the `locore` command ends: with one line, an exit code, and nothing from the interpreter."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from service.cli import main
from tests.e2e.command import run_here


def set_command(monkeypatch: pytest.MonkeyPatch, callback: Callable[[], object]) -> None:
    command = click.Command("command", callback=callback)
    monkeypatch.setattr(main.locore, "commands", {"command": command})


def raising(error: BaseException) -> Callable[[], None]:
    def callback() -> None:
        raise error

    return callback


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (EOFError(), 2, "the input ended"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (TimeoutError(), 2, "timed out"),
        (TimeoutError("no answer"), 2, "no answer"),
        (ConnectionError(), 2, "ConnectionError"),
        (click.UsageError("two\nlines"), 2, "two lines"),
    ],
    ids=str,
)
def test_an_error_is_one_line(
    error: BaseException,
    code: int,
    line: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_command(monkeypatch, raising(error))
    exit_code, out, err = run_here(capsys, "command")
    assert (exit_code, out, err.strip()) == (code, "", f"locore: {line}")


def test_a_question_that_nobody_answers_is_no_interrupt(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_command(monkeypatch, lambda: click.confirm("Sure?", err=True))
    with Path(os.devnull).open() as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        code, _, err = run_here(capsys, "command")
    assert code == 2
    assert err.endswith("locore: the input ended\n")


@pytest.mark.parametrize(("error", "code"), [(None, 1), (KeyboardInterrupt(), 130)])
def test_the_interpreter_does_not_complain_of_a_reader_that_has_gone(
    error: BaseException | None,
    code: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It flushes standard output as it ends, and tells of what fails."""
    reading, writing = os.pipe()
    os.close(reading)

    def callback() -> None:
        sys.stdout.write("never read")
        if error is not None:
            raise error

    set_command(monkeypatch, callback)
    with os.fdopen(writing, "w") as output:
        monkeypatch.setattr(sys, "stdout", output)
        assert run_here(capsys, "command")[0] == code
        output.flush()


def test_without_standard_output_a_command_succeeds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after `locore … >&-`, where Python has none."""
    set_command(monkeypatch, lambda: click.echo("nowhere"))
    monkeypatch.setattr(sys, "stdout", None)
    assert run_here(capsys, "command") == (0, "", "")
