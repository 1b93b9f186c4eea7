"""locore serve"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from service.app import create_app
from service.cli.common import check_collection, existing_folder
from service.inference.model_process import ModelProcess
from service.server import DrainingServer, listen, own_url
from service.settings import Settings
from service.watch.logs import configure_logging

_Command = Callable[..., None]


_REPEATED = {"metrics": "--metric"}
"""Settings with several values, and the flag for one value."""


def _flag(name: str, field: FieldInfo) -> Callable[[_Command], _Command]:
    default = field.default or "none"
    return click.option(
        _flag_name(name),
        name,
        default=None,
        multiple=name in _REPEATED,
        metavar="COLLECTION=FILE" if name in _REPEATED else "VALUE",
        help=f"{field.description} [env: LOCORE_{name.upper()}; default: {default}]",
    )


def _flag_name(name: str) -> str:
    return _REPEATED.get(name, "--" + name.replace("_", "-"))


def _settings_flags(command: _Command) -> _Command:
    for name, field in reversed(Settings.model_fields.items()):
        command = _flag(name, field)(command)
    return command


@click.command()
@click.option(
    "--sample",
    is_flag=True,
    help="Register a sample gallery of real photographs, unless it exists, and print a request to "
    "try.",
)
@click.option(
    "--images",
    multiple=True,
    type=existing_folder,
    help="Keep the pictures in this folder in the collection: new and changed ones are described "
    "while the service runs, deleted ones are removed. May be repeated.",
)
@click.option("--collection", help="The collection for --images.  [default: default]")
@_settings_flags
def serve(
    sample: bool,
    images: tuple[Path, ...],
    collection: str | None,
    **flags: str | tuple[str, ...] | None,
) -> None:
    """Run the service until SIGTERM or Ctrl-C, then drain and stop.

    Every setting is also an environment variable; the flag takes precedence.
    """
    if collection is not None and not images:
        raise click.UsageError("--collection needs --images")
    collection = "default" if collection is None else collection
    check_collection(collection)
    settings = read_settings({name: value for name, value in flags.items() if value})
    configure_logging(settings.log_format)
    with ModelProcess(settings.checkpoint, settings.device, settings.dtype) as model:
        _serve(settings, model, sample, images, collection)


def _serve(
    settings: Settings,
    model: ModelProcess,
    sample: bool,
    images: tuple[Path, ...],
    collection: str,
) -> None:
    config = model.info.config
    own = None
    if images:
        # Imported here: only this needs the extractor's packages.
        from service.cli.own_images.process import offer_images, own_images

        own = own_images(images, settings, config)
    try:
        listening = listen(settings.host, settings.port)
    except OSError as error:
        raise click.UsageError(
            f"cannot listen on {settings.host} port {settings.port}: {error.strerror}"
        ) from None
    server = DrainingServer(create_app(settings, model), settings)
    if sample:
        # Imported here: only this needs scikit-image.
        from service.cli.sample import make_sample, offer_sample

        folders = make_sample(settings.data_dir / "sample", config)
        arguments = (folders, settings, own_url(listening), server)
        threading.Thread(target=offer_sample, args=arguments, daemon=True).start()
    if own is not None:
        images_arguments = (own, collection, settings, own_url(listening), server)
        threading.Thread(target=offer_images, args=images_arguments, daemon=True).start()
    server.run_to_end(listening)


@click.command(hidden=True)
def openapi() -> None:
    """Print the OpenAPI document (`make openapi`)."""
    settings = read_settings({})
    with ModelProcess(settings.checkpoint, "cpu", settings.dtype) as model:
        click.echo(json.dumps(create_app(settings, model).openapi(), indent=2))


def read_settings(flags: dict[str, Any]) -> Settings:
    """Settings from flags, then the environment, then defaults. Raises click.UsageError with the
    setting's name."""
    try:
        return Settings(**flags)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        where = f"{_flag_name(name)} / LOCORE_{name.upper()}: " if name else ""
        raise click.UsageError(where + first["msg"]) from None
