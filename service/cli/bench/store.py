"""locore bench store"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
import uvloop
from rich.table import Table

from model.config import DEFAULT_CHECKPOINT
from model.config_file import read_config
from model.descriptors import ImageDescriptors
from model.quantisation import STORE_DTYPES, StoreDtype
from model.random_images import random_image
from service.cli.common import any_checkpoint, console, progress_bar
from service.gallery.names import Names
from service.gallery.record import GalleryRecord, pack_record, unpack_records
from service.gallery.store import GalleryStore
from service.gallery.store_connection import connect_store

_BATCH = 128


@dataclass(frozen=True)
class Plan:
    images: int
    shortlist: int
    requests: int
    concurrency: int


@dataclass(frozen=True)
class Measured:
    """Of images stored as `dtype`. `memory` is what the store grew by, in bytes; seconds otherwise:
    `cold`, of lists fetched and decoded one after the other."""

    dtype: StoreDtype
    memory: int
    loading: float
    fetching: float
    latencies: Sequence[float]
    cold: Sequence[float]


@click.command("store")
@click.option(
    "--redis", "redis_url", required=True, envvar="LOCORE_REDIS_URL", help="URL of the store."
)
@click.option("--images", type=click.IntRange(1), default=10_000, show_default=True)
@click.option("--shortlist", type=click.IntRange(1, 1600), default=100, show_default=True)
@click.option("--requests", type=click.IntRange(1), default=500, show_default=True)
@click.option("--concurrency", type=click.IntRange(1, 256), default=8, show_default=True)
@click.option("--checkpoint", type=any_checkpoint, default=DEFAULT_CHECKPOINT, help="Whose sizes.")
@click.option("--locals", "count", type=click.IntRange(1), help="Of an image.  [default: all]")
@click.option(
    "--store-dtype",
    "dtypes",
    multiple=True,
    type=click.Choice(STORE_DTYPES),
    default=STORE_DTYPES,
    help="May be repeated; default: each.",
)
def bench_store(
    redis_url: str,
    checkpoint: Path,
    count: int | None,
    dtypes: tuple[StoreDtype, ...],
    **plan_options: int,
) -> None:
    """Memory of an image and speed of shortlists, of a store: random images are put into a
    collection of their own, random shortlists of them fetched, and all removed again. A row for
    each way to store them."""
    plan = Plan(**plan_options)
    plan = replace(plan, shortlist=min(plan.shortlist, plan.images))
    config = read_config(checkpoint)
    try:
        store = connect_store(redis_url)
    except ValueError as error:
        raise click.UsageError(f"--redis: {error}") from None
    image = random_image(np.random.default_rng(0), config)
    image = image.strongest(count or image.count)
    # On the loop that the service runs on.
    rows = uvloop.run(_measure(store, image, plan, dtypes))
    console.print(_table(rows, image, plan))


def _table(rows: Sequence[Measured], image: ImageDescriptors, plan: Plan) -> Table:
    sizes = image.sizes
    table = Table(
        caption=f"{plan.images} images of {image.count} x {sizes.local_dim} and "
        f"{f'a global of {sizes.global_dim}' if sizes.global_dim else 'no global'}; "
        f"{plan.requests} shortlists of {plan.shortlist}, {plan.concurrency} at a time; cold: "
        "fetched and decoded, one after the other",
        caption_justify="left",
    )
    table.add_column("stored as")
    for title in (
        "record, bytes",
        "in the store",
        "images/s stored",
        "shortlists/s",
        "p50 ms",
        "p99 ms",
        "cold p50 ms",
    ):
        table.add_column(title, justify="right")
    for row in rows:
        p50, p99 = np.percentile(row.latencies, [50, 99]) * 1000
        table.add_row(
            row.dtype,
            f"{len(pack_record('', '', GalleryRecord(image), row.dtype)):,}",
            f"{row.memory / plan.images:,.0f}",
            f"{plan.images / row.loading:,.0f}",
            f"{plan.requests / row.fetching:,.0f}",
            f"{p50:.1f}",
            f"{p99:.1f}",
            f"{1000 * np.median(row.cold):.2f}",
        )
    return table


async def _measure(
    store: GalleryStore, image: ImageDescriptors, plan: Plan, dtypes: Sequence[StoreDtype]
) -> list[Measured]:
    try:
        return [await _measured(store, image, plan, dtype) for dtype in dtypes]
    finally:
        await store.close()


async def _measured(
    store: GalleryStore, image: ImageDescriptors, plan: Plan, dtype: StoreDtype
) -> Measured:
    collection = f"bench-{secrets.token_hex(4)}"
    ids = [f"{place:09d}" for place in range(plan.images)]
    before = await store.memory_bytes()
    try:
        loading = await _load(store, collection, ids, image, dtype)
        memory = await store.memory_bytes() - before
        rng = np.random.default_rng(0)
        shortlists = [
            [ids[place] for place in rng.choice(plan.images, plan.shortlist, replace=False)]
            for _ in range(plan.requests)
        ]
        started = time.perf_counter()
        latencies = await _at_once(
            plan.concurrency, [store.fetch(collection, shortlist) for shortlist in shortlists]
        )
        fetching = time.perf_counter() - started
        cold = [await fetch_cold(store, collection, shortlist) for shortlist in shortlists]
        return Measured(dtype, memory, loading, fetching, latencies, cold)
    finally:
        with progress_bar("Removing", len(ids)) as advance:
            for image_id in ids:
                await store.delete(collection, image_id)
                advance(1)
        await Names(store).forget(collection)


async def fetch_cold(store: GalleryStore, collection: str, ids: Sequence[str]) -> float:
    """Seconds until images that are in the store alone are there, decoded."""
    started = time.perf_counter()
    records = (await store.fetch(collection, ids)).records
    unpack_records(collection, {i: r for i, r in zip(ids, records, strict=True) if r is not None})
    return time.perf_counter() - started


async def _load(
    store: GalleryStore,
    collection: str,
    ids: Sequence[str],
    image: ImageDescriptors,
    dtype: StoreDtype,
) -> float:
    """Seconds that the store took."""
    record = GalleryRecord(image)
    seconds = 0.0
    with progress_bar("Storing", len(ids)) as advance:
        for start in range(0, len(ids), _BATCH):
            chunk = ids[start : start + _BATCH]
            batch = {i: pack_record(collection, i, record, dtype) for i in chunk}
            started = time.perf_counter()
            await store.put(collection, batch, image.sizes, ttl_seconds=None)
            seconds += time.perf_counter() - started
            advance(len(batch))
    return seconds


async def _at_once(at_once: int, work: Sequence[Awaitable[object]]) -> list[float]:
    """Seconds of each, `at_once` of them at a time."""
    places = asyncio.Semaphore(at_once)

    async def timed(item: Awaitable[object]) -> float:
        async with places:
            started = time.perf_counter()
            await item
            return time.perf_counter() - started

    return await asyncio.gather(*(timed(item) for item in work))
