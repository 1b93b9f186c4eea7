"""The `locore` command: its subcommands, and how errors leave it."""

from __future__ import annotations

import atexit
import gc
import pkgutil
import sys
from collections import UserDict
from typing import Any, NoReturn

import click
from redis.exceptions import RedisError

from locore_client import ClientError
from model.config_file import CheckpointError
from model.descriptor_file import DescriptorFileError
from model.extraction.extractor import ExtractorError, NoDescriptorsError
from model.extraction.folders import UnreadableImageError
from model.formats.format_error import FormatError
from model.learnt_metric import MetricError
from model.training.training_error import TrainingError
from service import __version__
from service.api.errors import ApiError, StoreUnavailableError
from service.cli.common import drop_unwritten, write_any_text
from service.gallery.condition import reason
from service.gallery.embedded import EmbeddedStoreError
from service.inference.model_process import ModelProcessError, UnfitModelError
from service.offline.offline_error import OfflineError
from service.watch.tracing import TracingError

EXPECTED = (
    ApiError,
    CheckpointError,
    ClientError,
    DescriptorFileError,
    EmbeddedStoreError,
    ExtractorError,
    FormatError,
    MetricError,
    ModelProcessError,
    NoDescriptorsError,
    OSError,
    OfflineError,
    RedisError,
    TracingError,
    TrainingError,
    UnfitModelError,
    UnreadableImageError,
)
"""Errors of a user's files, flags and services: one line, exit code 2, no trace."""


class _LazyCommands(UserDict[str, Any]):
    """Commands by name, each imported when it is called: serving needs nothing that evaluates or
    trains, and starts a quarter faster without it."""

    def __getitem__(self, name: str) -> click.Command:
        command: click.Command = pkgutil.resolve_name(self.data[name])
        return command


COMMANDS = _LazyCommands(
    {
        "bench": "service.cli.bench:bench",
        "collections": "service.cli.collections:collections",
        "convert": "service.cli.convert:convert",
        "eval": "service.cli.evaluate:evaluate",
        "extract": "service.cli.extract:extract",
        "fit-metric": "service.cli.fit_metric:fit",
        "load": "service.cli.load:load",
        "neighbours": "service.cli.neighbours:neighbours",
        "openapi": "service.cli.serve:openapi",
        "rerank": "service.cli.rerank:rerank",
        "rerank-batch": "service.cli.rerank_batch:rerank_batch",
        "serve": "service.cli.serve:serve",
        "train": "service.cli.train:train",
    }
)


@click.group(
    commands=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="locore")
def locore() -> None:
    """Re-rank image search results from local descriptors.

    To try it: `locore serve --sample`, then in another terminal the command that it prints.

    On your own photographs: `locore serve --images PHOTOS`, then open http://127.0.0.1:8000/.

    Step by step, with the service running: `locore extract PHOTOS -o photos.h5`,
    `locore load photos.h5`, `locore rerank QUERY.jpg --gallery photos.h5`.
    """


# The process frees all its memory as it ends; collecting cycles first would take half a second.
atexit.register(gc.freeze)


def run() -> None:
    """The console script."""
    write_any_text()
    try:
        code = locore.main(prog_name="locore", standalone_mode=False)
        if sys.stdout:
            sys.stdout.flush()
    except click.exceptions.Exit as error:
        code = error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(2)
    except click.ClickException as error:
        _fail(error.format_message())
    except StoreUnavailableError as error:
        # The service tells its clients no more than this; the owner of the store may know why.
        _fail(f"{error}: {reason(error.__cause__)}" if error.__cause__ else str(error))
    except BrokenPipeError:
        # The reader of the output has gone. click ends a command the same way.
        sys.exit(1)
    except EXPECTED as error:
        _fail(_text(error))
    except (click.Abort, KeyboardInterrupt) as error:
        # click raises Abort for both, Ctrl-C and an input that ends.
        if isinstance(error.__context__, EOFError):
            _fail("the input ended")
        print("locore: interrupted", file=sys.stderr)
        sys.exit(130)
    finally:
        drop_unwritten()
    sys.exit(code if isinstance(code, int) else 0)


def _text(error: BaseException) -> str:
    """What the error says. Some say nothing, such as the TimeoutError of asyncio."""
    if isinstance(error, TimeoutError) and not str(error):
        return "timed out"
    return str(error) or type(error).__name__


def _fail(message: str) -> NoReturn:
    print("locore: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(2)
