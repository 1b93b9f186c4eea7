"""locore bench store"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click
import numpy as np
from rich.table import Table

from model.checkpoint import read_config
from model.config import DEFAULT_CHECKPOINT
from model.descriptors import ImageDescriptors
from model.reranker import random_image
from service.cli.common import any_checkpoint, console, progress_bar
from service.gallery.connect import connect_store
from service.gallery.record import GalleryRecord, pack_record, unpack_record
from service.gallery.store import GalleryStore

_BATCH = 128


@dataclass(frozen=True)
class Plan:
    images: int
    shortlist: int
    requests: int
    concurrency: int
    store_dtype: str


@dataclass(frozen=True)
class Measured:
    """`memory` is what the store grew by, in bytes; seconds otherwise."""

    memory: int
    loading: float
    fetching: float
    latencies: Sequence[float]
    unpacking: float


@click.command("store")
@click.option(
    "--redis", "redis_url", required=True, envvar="LOCORE_REDIS_URL", help="URL of the store."
)
@click.option("--images", type=click.IntRange(1), default=10_000, show_default=True)
@click.option("--shortlist", type=click.IntRange(1, 1600), default=100, show_default=True)
@click.option("--requests", type=click.IntRange(1), default=500, show_default=True)
@click.option("--concurrency", type=click.IntRange(1, 256), default=8, show_default=True)
@click.option("--checkpoint", type=any_checkpoint, default=DEFAULT_CHECKPOINT, help="Whose sizes.")
@click.option(
    "--store-dtype", type=click.Choice(["float16", "float32"]), default="float16", show_default=True
)
def bench_store(
    redis_url: str,
    images: int,
    shortlist: int,
    requests: int,
    concurrency: int,
    checkpoint: Path,
    store_dtype: Literal["float16", "float32"],
) -> None:
    """Memory of an image and speed of shortlists, of a store: random images are put into a
    collection of their own, random shortlists of them fetched, and all removed again."""
    plan = Plan(images, min(shortlist, images), requests, concurrency, store_dtype)
    config = read_config(checkpoint)
    try:
        store = connect_store(redis_url)
    except ValueError as error:
        raise click.UsageError(f"--redis: {error}") from None
    image = random_image(np.random.default_rng(0), config)
    found = asyncio.run(_measure(store, image, plan))
    sizes = image.sizes
    table = Table(
        caption=f"{plan.images} images of {image.count} x {sizes.local_dim} and "
        f"{f'a global of {sizes.global_dim}' if sizes.global_dim else 'no global'}, "
        f"{store_dtype}; {requests} shortlists of {plan.shortlist}, {concurrency} at a time",
        caption_justify="left",
    )
    for title in (
        "bytes an image",
        "images/s stored",
        "shortlists/s",
        "p50 ms",
        "p99 ms",
        "ms to unpack a list",
    ):
        table.add_column(title, justify="right")
    p50, p99 = np.percentile(found.latencies, [50, 99]) * 1000
    table.add_row(
        f"{found.memory / plan.images:,.0f}",
        f"{plan.images / found.loading:,.0f}",
        f"{requests / found.fetching:,.0f}",
        f"{p50:.1f}",
        f"{p99:.1f}",
        f"{1000 * found.unpacking:.2f}",
    )
    console.print(table)


async def _measure(store: GalleryStore, image: ImageDescriptors, plan: Plan) -> Measured:
    try:
        return await _measured(store, image, plan)
    finally:
        await store.close()


async def _measured(store: GalleryStore, image: ImageDescriptors, plan: Plan) -> Measured:
    collection = f"bench-{secrets.token_hex(4)}"
    ids = [f"{place:09d}" for place in range(plan.images)]
    before = await store.memory_bytes()
    try:
        loading = await _load(store, collection, ids, image, plan)
        memory = await store.memory_bytes() - before
        rng = np.random.default_rng(0)
        shortlists = [
            [ids[place] for place in rng.choice(plan.images, plan.shortlist, replace=False)]
            for _ in range(plan.requests)
        ]
        started = time.perf_counter()
        latencies = await _at_once(
            plan.concurrency, [store.fetch(collection, wanted) for wanted in shortlists]
        )
        fetching = time.perf_counter() - started
        records = await store.fetch(collection, shortlists[0])
        started = time.perf_counter()
        for image_id, record in zip(shortlists[0], records, strict=True):
            unpack_record(collection, image_id, record or b"")
        return Measured(memory, loading, fetching, latencies, time.perf_counter() - started)
    finally:
        with progress_bar("Removing", len(ids)) as advance:
            for image_id in ids:
                await store.delete(collection, image_id)
                advance(1)


async def _load(
    store: GalleryStore, collection: str, ids: Sequence[str], image: ImageDescriptors, plan: Plan
) -> float:
    """Seconds that the store took."""
    record = GalleryRecord(image)
    seconds = 0.0
    with progress_bar("Storing", len(ids)) as advance:
        for start in range(0, len(ids), _BATCH):
            batch = {
                i: pack_record(collection, i, record, plan.store_dtype)
                for i in ids[start : start + _BATCH]
            }
            started = time.perf_counter()
            await store.put(collection, batch, image.sizes, ttl_seconds=None)
            seconds += time.perf_counter() - started
            advance(len(batch))
    return seconds


async def _at_once(most: int, work: Sequence[Awaitable[object]]) -> list[float]:
    """Seconds of each, `most` of them at a time."""
    places = asyncio.Semaphore(most)

    async def one(item: Awaitable[object]) -> float:
        async with places:
            started = time.perf_counter()
            await item
            return time.perf_counter() - started

    return await asyncio.gather(*(one(item) for item in work))
