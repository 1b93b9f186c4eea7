"""locore load"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Literal, TypeVar

import click
from pydantic import TypeAdapter, ValidationError

from model.descriptor_file import DescriptorFileError, DescriptorReader
from service.cli.common import any_path, progress_bar, service_options
from service.client import Client
from service.gallery.gallery import Gallery
from service.gallery.record import GalleryRecord
from service.gallery.store import GalleryStore
from service.schemas import ImageId

BATCH = 128
"""Images of one registration: a few MiB."""

_Item = TypeVar("_Item")


@click.command()
@click.argument("file", type=any_path)
@service_options
@click.option("--redis", "redis_url", help="Write straight to this Redis, without a service.")
@click.option(
    "--store-dtype",
    type=click.Choice(["float16", "float32"]),
    default="float16",
    show_default=True,
    envvar="LOCORE_STORE_DTYPE",
    help="With --redis: numbers that descriptors are stored as.",
)
@click.option("--replace", is_flag=True, help="Load images again that are there already.")
def load(
    file: Path,
    url: str,
    api_key: str | None,
    collection: str,
    redis_url: str | None,
    store_dtype: Literal["float16", "float32"],
    replace: bool,
) -> None:
    """Register the images of FILE.h5, through a service or straight in Redis.

    Images that are there already are passed over, so a load that broke off is taken up where it
    was by the same command.
    """
    reader = DescriptorReader(file)
    try:
        TypeAdapter(list[ImageId]).validate_python(reader.ids)
    except ValidationError as error:
        first = error.errors()[0]
        raise DescriptorFileError(f"{file}: id {first['input']!r}: {first['msg']}") from None
    if redis_url is None:
        with Client(url, api_key) as client:
            count = load_to_service(reader, client, collection, replace=replace)
    else:
        try:
            store = GalleryStore.connect(redis_url)
        except ValueError as error:
            raise click.UsageError(f"--redis: {error}") from None
        count = asyncio.run(_load_to_redis(reader, store, collection, store_dtype, replace))
    click.echo(f"{count} images loaded, {len(reader) - count} were there already", err=True)


def load_to_service(
    reader: DescriptorReader, client: Client, collection: str, *, replace: bool = False
) -> int:
    """How many images were registered. Raises ClientError."""
    there: set[str] = set()
    cursor = None
    while not replace:
        page = client.page(collection, cursor=cursor)
        there.update(page.ids)
        cursor = page.next_cursor
        if cursor is None:
            break
    left = [place for place, image_id in enumerate(reader.ids) if image_id not in there]
    with progress_bar("Loading", len(left)) as advance:
        for places in _batches(left):
            client.register({reader.ids[place]: reader[place] for place in places}, collection)
            advance(len(places))
    return len(left)


async def _load_to_redis(
    reader: DescriptorReader, store: GalleryStore, collection: str, dtype: str, replace: bool
) -> int:
    gallery = Gallery(store, cache_bytes=0, dtype=dtype)
    there: set[str] = set()
    after = None
    try:
        while not replace:
            page = await gallery.page(collection, 10_000, after)
            there.update(page.ids)
            after = page.next_cursor
            if after is None:
                break
        left = [place for place, image_id in enumerate(reader.ids) if image_id not in there]
        with progress_bar("Loading", len(left)) as advance:
            for places in _batches(left):
                records = {reader.ids[p]: GalleryRecord(reader[p]) for p in places}
                await gallery.register(collection, records, None)
                advance(len(places))
    finally:
        await store.close()
    return len(left)


def _batches(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    iterator = iter(items)
    while batch := list(islice(iterator, BATCH)):
        yield batch
