"""Helpers and options of several commands."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from model.extraction.file_extraction import BATCH, ExtractionRun
from model.progress import tracked as counted
from model.quantisation import STORE_DTYPES
from model.shipped import checkpoint_file
from service.api.schemas import Collection
from service.gallery.record import DEFAULT_STORE_DTYPE
from service.machine.cores import usable_cores

if TYPE_CHECKING:
    import torch

_Item = TypeVar("_Item")
_Function = TypeVar("_Function", bound=Callable[..., Any])

_UNCUT = 10_000
"""Columns: lines in a file or a pipe are not cut at a terminal's width."""

console = Console(width=None if sys.stdout and sys.stdout.isatty() else _UNCUT)
errors = Console(stderr=True)


def write_any_text() -> None:
    """Writes characters that the encoding of standard output or error lacks as `\\x…`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def drop_unwritten() -> None:
    """Flushes standard output and error, and drops what they do not take: Python would try again as
    it ends, complain, and exit with code 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream:
                stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


existing_folder = click.Path(exists=True, file_okay=False, path_type=Path)
any_path = click.Path(path_type=Path)


class _Checkpoint(click.ParamType[Path]):
    """A parameter: the path of a .safetensors file, or the name of a shipped checkpoint."""

    name = "path or name"

    def convert(
        self, value: str | Path, param: click.Parameter | None, ctx: click.Context | None
    ) -> Path:
        try:
            return checkpoint_file(Path(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


any_checkpoint = _Checkpoint()


def say(message: str) -> None:
    """Prints a line on standard error, above a progress bar if one is running."""
    errors.print(message, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def progress_bar(description: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Shows a bar on standard error. Yields a function that advances it by a number of items."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=errors,
        # In a log file a bar would write all of its frames.
        disable=not errors.is_terminal,
    ) as progress:
        task = progress.add_task(description, total=total)
        yield lambda amount: progress.advance(task, amount)


def tracked(items: Iterable[_Item], description: str, total: int | None) -> Iterator[_Item]:
    return counted(progress_bar, description, total, items)


@contextmanager
def naming(flag: str, *errors: type[Exception]) -> Iterator[None]:
    """Turns any of these errors into a click.UsageError that names the flag."""
    try:
        yield
    except errors as error:
        raise click.UsageError(f"{flag}: {error}") from None


def extraction_run(workers: int = usable_cores(), batch: int = BATCH) -> ExtractionRun:
    """A run that reports skipped images and its progress on standard error."""
    return ExtractionRun(workers, batch, say, tracked)


def device_of(name: str) -> torch.device:
    """The device of that name; `auto` is a GPU if there is one. Raises click.UsageError if there is
    no such device."""
    # Imported here: serving and commands that talk to a service do without torch, whose import
    # takes a second or two.
    from model.device import DeviceError, device_named

    try:
        return device_named(name)
    except DeviceError as error:
        raise click.UsageError(str(error)) from None


device_option = click.option(
    "--device",
    default="auto",
    envvar="LOCORE_DEVICE",
    show_default=True,
    metavar="auto|cpu|cuda[:N]",
    help="Where the model computes; auto takes a GPU if there is one.",
)


descriptor_dim_option = click.option(
    "--descriptor-dim",
    type=click.IntRange(1),
    help="For a descriptor file whose rows are descriptors without the five leading columns (x, y, "
    "scale, mask, weight): the length of a row.",
)


metric_option = click.option(
    "--metric",
    type=any_path,
    help="A file from `locore fit-metric`: images are compared in that metric.",
)


def storage_options(when: str) -> Callable[[_Function], _Function]:
    """Adds --store-dtype and --pool-locals, as the service's settings. The help begins with `when`:
    the condition under which they count."""

    def with_options(function: _Function) -> _Function:
        for option in (
            click.option(
                "--pool-locals",
                type=click.IntRange(1),
                envvar="LOCORE_POOL_LOCALS",
                help=f"{when}: the most locals of an image; the most similar ones are merged.",
            ),
            click.option(
                "--store-dtype",
                type=click.Choice(STORE_DTYPES),
                default=DEFAULT_STORE_DTYPE,
                show_default=True,
                envvar="LOCORE_STORE_DTYPE",
                help=f"{when}: the number type of stored descriptors.",
            ),
        ):
            function = option(function)
        return function

    return with_options


def check_collection(name: str) -> None:
    """Raises click.UsageError for a name that no collection can have."""
    try:
        TypeAdapter(Collection).validate_python(name)
    except ValidationError as error:
        raise click.UsageError(f"--collection: {error.errors()[0]['msg']}") from None


def connection_options(function: _Function) -> _Function:
    """Adds --url and --api-key, for commands that talk to a running service."""
    for option in (
        click.option(
            "--api-key", envvar="LOCORE_API_KEY", help="The service's key, if it has one."
        ),
        click.option(
            "--url",
            default="http://127.0.0.1:8000",
            show_default=True,
            envvar="LOCORE_URL",
            help="The service.",
        ),
    ):
        function = option(function)
    return function


def service_options(function: _Function) -> _Function:
    """Adds --url, --api-key and --collection."""
    collection = click.option("--collection", default="default", show_default=True)
    return connection_options(collection(function))
