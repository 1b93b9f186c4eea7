"""locore load"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Protocol, TypeVar

import click
from pydantic import TypeAdapter, ValidationError

from locore_client import Client
from model.descriptor_file import DescriptorFileError, DescriptorReader, NoDescriptorError
from model.descriptors import ImageDescriptors
from model.quantisation import StoreDtype
from service.api.schemas import ImageId
from service.api.sizes import beyond_limits
from service.cli.common import (
    any_path,
    check_collection,
    descriptor_dim_option,
    progress_bar,
    say,
    service_options,
    storage_options,
)
from service.gallery.record import GalleryRecord
from service.gallery.registered_images import Gallery
from service.gallery.store_connection import connect_store

BATCH = 128
"""Images in one registration: a few MiB."""

_PAGE = 10_000
_IMAGE_ID: TypeAdapter[str] = TypeAdapter(ImageId)
_Item = TypeVar("_Item")


@click.command()
@click.argument("file", type=any_path)
@service_options
@click.option("--redis", "redis_url", help="Write straight to this Redis, without a service.")
@storage_options("With --redis")
@descriptor_dim_option
@click.option("--replace", is_flag=True, help="Load also images that are registered already.")
def load(
    file: Path,
    url: str,
    api_key: str | None,
    collection: str,
    redis_url: str | None,
    store_dtype: StoreDtype,
    pool_locals: int | None,
    descriptor_dim: int | None,
    replace: bool,
) -> None:
    """Register the images of FILE.h5, through a service or straight in Redis.

    Images that are registered already are skipped, so the same command continues an interrupted
    load. An image without a valid descriptor, or with an id that the service does not accept, is
    reported and left out.
    """
    reader = DescriptorReader(file, descriptor_dim)
    _check_before(reader, collection)
    if redis_url is None:
        with Client(url, api_key) as client:
            count, present = load_images(
                reader, ThroughService(client, collection), replace=replace
            )
    else:
        with asyncio.Runner() as runner:
            target = StraightToRedis(runner, redis_url, collection, store_dtype, pool_locals)
            try:
                count, present = load_images(reader, target, replace=replace)
            finally:
                target.close()
    if not count and not present:
        raise DescriptorFileError(f"{file}: none of its {len(reader)} images could be loaded")
    click.echo(f"{count} images loaded, {present} were there already", err=True)


class Target(Protocol):
    """The collection that images are loaded into."""

    def page(self, cursor: str | None) -> tuple[list[str], str | None]:
        """Some of the registered ids, and the cursor of the next ones."""
        ...

    def register(self, images: Mapping[str, ImageDescriptors]) -> None: ...


class ThroughService:
    def __init__(self, client: Client, collection: str) -> None:
        self._client = client
        self._collection = collection

    def page(self, cursor: str | None) -> tuple[list[str], str | None]:
        page = self._client.page(self._collection, _PAGE, cursor)
        return page.ids, page.next_cursor

    def register(self, images: Mapping[str, ImageDescriptors]) -> None:
        self._client.register(images, self._collection)


class StraightToRedis:
    """Raises click.UsageError for an invalid URL."""

    def __init__(
        self,
        runner: asyncio.Runner,
        url: str,
        collection: str,
        store_dtype: StoreDtype,
        pool_locals: int | None = None,
    ) -> None:
        try:
            self._store = connect_store(url)
        except ValueError as error:
            raise click.UsageError(f"--redis: {error}") from None
        self._runner = runner
        self._collection = collection
        self._gallery = Gallery(
            self._store, cache_bytes=0, dtype=store_dtype, pool_locals=pool_locals
        )

    def page(self, cursor: str | None) -> tuple[list[str], str | None]:
        generation = self._runner.run(self._gallery.names.resolve(self._collection))
        page = self._runner.run(self._gallery.page(generation, _PAGE, cursor))
        return page.ids, page.next_cursor

    def register(self, images: Mapping[str, ImageDescriptors]) -> None:
        records = {image_id: GalleryRecord(image) for image_id, image in images.items()}
        self._runner.run(self._gallery.register(self._collection, records, None))

    def close(self) -> None:
        self._runner.run(self._store.close())


def load_images(
    reader: DescriptorReader, target: Target, *, replace: bool = False
) -> tuple[int, int]:
    """Registers the images. Returns how many, and how many were registered before."""
    present: set[str] = set()
    cursor: str | None = None
    while not replace:
        ids, cursor = target.page(cursor)
        present.update(ids)
        if cursor is None:
            break
    absent = [place for place in range(len(reader)) if reader.ids[place] not in present]
    present_count = len(reader) - len(absent)
    absent = [place for place in absent if _acceptable(reader, place)]
    registered = 0
    with progress_bar("Loading", len(absent)) as advance:
        for places in _batches(absent):
            images = dict(_described(reader, places))
            if images:
                target.register(images)
            registered += len(images)
            advance(len(places))
    return registered, present_count


def _acceptable(reader: DescriptorReader, place: int) -> bool:
    why = _refusal(reader.ids[place])
    if why is not None:
        say(f"left out: {reader.path}: {why}")
    return why is None


def _refusal(image_id: str) -> str | None:
    """Why the service does not accept an id; None if it does."""
    try:
        _IMAGE_ID.validate_python(image_id)
    except ValidationError as error:
        return f"id {image_id!r}: {error.errors()[0]['msg']}"
    return None


def _described(
    reader: DescriptorReader, places: Iterable[int]
) -> Iterator[tuple[str, ImageDescriptors]]:
    for place in places:
        try:
            yield reader.ids[place], reader[place]
        except NoDescriptorError as error:
            say(f"left out: {error}")


def _check_before(reader: DescriptorReader, collection: str) -> None:
    """Raises what the service would refuse: --redis must not bypass it."""
    check_collection(collection)
    refusals = map(_refusal, reader.ids)
    first = next(refusals, None)
    if first is not None and all(refusals):
        raise DescriptorFileError(f"{reader.path}: {first}")
    beyond = beyond_limits(reader.sizes)
    if beyond is not None:
        part, why = beyond
        raise DescriptorFileError(f"{reader.path}: {part}: {why}")


def _batches(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    iterator = iter(items)
    while batch := list(islice(iterator, BATCH)):
        yield batch
