"""The process that describes pictures beside the service, and its start."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path
from urllib.parse import urlencode

import click

from model.config import ModelConfig
from model.descriptor_file import DescriptorFileError
from model.extraction.extractor import ExtractorError
from model.extraction.folders import UnreadableImageError, has_picture
from model.extraction.registry import registered
from service.api.errors import ApiError
from service.cli.common import device_of, say
from service.cli.own_images.own_collection import OwnCollection, Place
from service.cli.own_images.update import OwnImages, update_collection
from service.machine.priority import give_way
from service.server import DrainingServer
from service.settings import CHECKPOINTS_EXTRACTOR, NO_EXTRACTOR, Settings

_EXPECTED = (ApiError, DescriptorFileError, ExtractorError, UnreadableImageError, OSError)


def own_images(folders: Sequence[Path], settings: Settings, config: ModelConfig) -> OwnImages:
    """Raises click.UsageError if these settings allow no pictures, or a folder has none."""
    if settings.extractor == NO_EXTRACTOR:
        raise click.UsageError("--images needs an extractor, and --extractor is none")
    by_default = settings.extractor == CHECKPOINTS_EXTRACTOR
    name = config.extractor.name if by_default else settings.extractor
    registered(name)
    for folder in folders:
        if not has_picture(folder):
            raise click.UsageError(f"--images: no readable picture in {folder}")
    return OwnImages(
        folders=tuple(folder.resolve() for folder in folders),
        extractor=name,
        expected=config.extractor if by_default else None,
        device=settings.device,
        sizes=config.sizes,
        count=config.descriptors_per_image,
        cache_folder=settings.data_dir / "images",
        # Without the password, which may change.
        store=settings.redis_url.rpartition("@")[2],
        thumbnails=settings.thumbnail_bytes > 0,
    )


def offer_images(
    own: OwnImages, collection: str, settings: Settings, url: str, server: DrainingServer
) -> None:
    """Runs in a thread beside the server. Once it is up, starts the process, which ends with the
    service, however that ends."""
    state = server.started_state()
    if state is None:
        return
    place = Place(
        collection,
        state.store_url,
        settings.store_dtype,
        settings.pool_locals,
        settings.thumbnail_bytes,
    )
    say(
        f"The pictures go into collection {collection}. Those already described can be searched "
        f"meanwhile: {url}/#{urlencode({'collection': collection})}"
    )
    # Spawned: a fork would take over the locks of other threads.
    process = multiprocessing.get_context("spawn").Process(
        target=_run, args=(own, place), daemon=True
    )
    process.start()


def _run(own: OwnImages, place: Place) -> None:
    # Ctrl-C in a terminal reaches both processes: the service drains, and then ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    give_way()
    own = replace(own, device=str(device_of(own.device)))
    try:
        with OwnCollection(place) as collection:
            say(update_collection(own, collection))
    except _EXPECTED as error:
        say(f"Not all pictures are in the collection: {error}")


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(0)
