"""A file of lines that is written atomically; a run that was killed can be continued."""

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
    """Lines go to OUTPUT.partial; `finish` renames it to OUTPUT. OUTPUT.partial.json names the
    inputs, so that a run with other inputs cannot continue it."""

    def __init__(
        self, output: Path, inputs: Mapping[str, Any], *, resume: bool, overwrite: bool
    ) -> None:
        """`inputs`: what the lines depend on, as JSON. Raises FormatError if OUTPUT or an
        interrupted run exists, and if that run had other inputs."""
        self.partial = partial_of(output)
        self._inputs = output.with_name(output.name + ".partial.json")
        self._output = output
        if output.is_dir() or not output.parent.is_dir():
            raise FormatError(f"{output}: cannot be written")
        if output.exists() and not overwrite and not (resume and self.partial.exists()):
            raise FormatError(f"{output}: exists already; --overwrite replaces it")
        if self.partial.exists() and not (resume or overwrite):
            raise FormatError(
                f"{self.partial}: from an interrupted run; --resume continues it, "
                "--overwrite starts again"
            )
        continues = resume and self.partial.exists()
        if continues:
            self._check_inputs(inputs)
        else:
            self.partial.unlink(missing_ok=True)
            self._inputs.write_text(json.dumps(inputs, indent=2) + "\n")
        self._file = self.partial.open("r+b" if continues else "w+b")
        self.lines = self._complete_lines()
        """The number of lines in the partial file."""

    def _check_inputs(self, inputs: Mapping[str, Any]) -> None:
        try:
            previous = json.loads(self._inputs.read_bytes())
        except (OSError, ValueError):
            raise FormatError(
                f"{self._inputs}: cannot be read, so the inputs of the run are unknown; "
                "--overwrite starts again"
            ) from None
        now = json.loads(json.dumps(inputs))
        previous = previous if isinstance(previous, dict) else {}
        differing = [name for name in now if previous.get(name) != now[name]]
        if differing:
            raise FormatError(
                f"{self.partial}: the interrupted run had another {differing[0]}; "
                "--overwrite starts again"
            )

    def _complete_lines(self) -> int:
        """Counts complete lines, and cuts off an incomplete one."""
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
        # Progress that is shown must survive a kill.
        self._file.flush()

    def finish(self) -> None:
        os.fsync(self._file.fileno())
        self._file.close()
        self.partial.replace(self._output)
        self._inputs.unlink(missing_ok=True)

    def close(self) -> None:
        self._file.close()


def fingerprint(path: Path | None) -> list[object] | None:
    """Identifies the state of an input file: its name, size and time of change. Raises FormatError
    if it does not exist."""
    if path is None:
        return None
    with opening(path):
        status = path.stat()
    return [str(path.resolve()), status.st_size, status.st_mtime_ns]
