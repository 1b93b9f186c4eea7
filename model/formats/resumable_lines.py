"""A file of lines that is written whole or not at all, and goes on where a killed run left it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model.closing import Closing
from model.formats.format_error import FormatError, opening


def partial_of(output: Path) -> Path:
    return output.with_name(output.name + ".partial")


class ResumableLines(Closing):
    """Lines go to OUTPUT.partial; `finish` makes it OUTPUT. OUTPUT.partial.json says what the run
    worked from, so that a run with other inputs cannot go on with it."""

    def __init__(
        self, output: Path, inputs: Mapping[str, Any], *, resume: bool, overwrite: bool
    ) -> None:
        """`inputs`: what the lines follow from, as JSON. Raises FormatError if OUTPUT, or a
        run that broke off, is in the way, and where that run was given something else."""
        self.partial = partial_of(output)
        self._inputs = output.with_name(output.name + ".partial.json")
        self._output = output
        if output.is_dir() or not output.parent.is_dir():
            raise FormatError(f"{output}: no file that can be written")
        if output.exists() and not overwrite and not (resume and self.partial.exists()):
            raise FormatError(f"{output}: is there already; --overwrite replaces it")
        if self.partial.exists() and not (resume or overwrite):
            raise FormatError(
                f"{self.partial}: of a run that broke off; --resume goes on with it, --overwrite "
                "begins anew"
            )
        continues = resume and self.partial.exists()
        if continues:
            self._check_inputs(inputs)
        else:
            self.partial.unlink(missing_ok=True)
            self._inputs.write_text(json.dumps(inputs, indent=2) + "\n")
        self._file = self.partial.open("r+b" if continues else "w+b")
        self.lines = self._whole_lines()
        """How many lines the partial file has already."""

    def _check_inputs(self, inputs: Mapping[str, Any]) -> None:
        try:
            previous = json.loads(self._inputs.read_bytes())
        except (OSError, ValueError):
            raise FormatError(
                f"{self._inputs}: cannot be read, so nobody knows what the run was given; "
                "--overwrite begins anew"
            ) from None
        now = json.loads(json.dumps(inputs))
        previous = previous if isinstance(previous, dict) else {}
        differing = [name for name in now if previous.get(name) != now[name]]
        if differing:
            raise FormatError(
                f"{self.partial}: the run that broke off was given another {differing[0]}; "
                "--overwrite begins anew"
            )

    def _whole_lines(self) -> int:
        """Counts them, and cuts off what a killed run left of one more."""
        lines = end = 0
        for line in self._file:
            if line.endswith(b"\n"):
                lines += 1
                end += len(line)
        self._file.seek(end)
        self._file.truncate()
        return lines

    def write(self, line: str) -> None:
        self._file.write(line.encode())
        # What the output shows as done must survive a kill.
        self._file.flush()

    def finish(self) -> None:
        os.fsync(self._file.fileno())
        self._file.close()
        self.partial.replace(self._output)
        self._inputs.unlink(missing_ok=True)

    def close(self) -> None:
        self._file.close()


def fingerprint(path: Path | None) -> list[object] | None:
    """What tells one state of an input file from another: its name, size and time of change.
    Raises FormatError for one that is not there."""
    if path is None:
        return None
    with opening(path):
        status = path.stat()
    return [str(path.resolve()), status.st_size, status.st_mtime_ns]
