"""locore bench"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import click
import httpx
import numpy as np
from rich.table import Table

from model.checkpoint import load_checkpoint
from model.config import DEFAULT_CHECKPOINT
from model.descriptors import DescriptorSizes, ImageDescriptors
from model.reranker import random_window, score_windows
from service.cli.bench_store import bench_store
from service.cli.common import (
    any_path,
    console,
    device_of,
    device_option,
    progress_bar,
    service_options,
    tracked,
)
from service.client import Client, ClientError, image_from_arrays, rerank_body
from service.client.exchange import sendable
from service.proxies import way_to

_BATCHES = (1, 2, 4, 8)
_WARM = 2


@click.group()
def bench() -> None:
    """Measure speed: of the model alone, of a store, or of a running service under load."""


bench.add_command(bench_store)


@bench.command("model")
@click.option("--checkpoint", type=any_path, default=DEFAULT_CHECKPOINT)
@click.option("--images", type=click.IntRange(1), default=100, show_default=True)
@click.option("--repeats", type=click.IntRange(1), default=10, show_default=True)
@device_option
def bench_model(checkpoint: Path, images: int, repeats: int, device: str) -> None:
    """Seconds of a forward pass, by windows in the batch; batch sizes take turns."""
    model = load_checkpoint(checkpoint, device_of(device))
    window = random_window(model.config, images)
    spent: dict[int, list[float]] = {size: [] for size in _BATCHES}
    for _ in tracked(range(repeats + _WARM), "Measuring", repeats + _WARM):
        for size in _BATCHES:
            started = time.perf_counter()
            score_windows(model.reranker, [window] * size, model.device)
            spent[size].append(time.perf_counter() - started)
    table = Table(
        caption=f"{model.config.name}, {images} images a window, {model.device}, scan by "
        f"{model.kernel}; median of {repeats}",
        caption_justify="left",
    )
    for title in ("windows a batch", "ms a batch", "ms a window", "windows a second, to 1"):
        table.add_column(title, justify="right")
    medians = {size: float(np.median(times[_WARM:])) for size, times in spent.items()}
    for size, seconds in medians.items():
        table.add_row(
            str(size),
            f"{1000 * seconds:.1f}",
            f"{1000 * seconds / size:.1f}",
            f"{medians[1] * size / seconds:.2f}",
        )
    console.print(table)


@bench.command("service")
@click.option("--requests", type=click.IntRange(1), default=64, show_default=True)
@click.option("--concurrency", type=click.IntRange(1, 256), default=8, show_default=True)
@click.option("--images", type=click.IntRange(1, 1600), default=100, show_default=True)
@service_options
def bench_service(
    requests: int,
    concurrency: int,
    images: int,
    url: str,
    api_key: str | None,
    collection: str,
) -> None:
    """Latency under load, with random queries over the images of a collection."""
    with Client(url, api_key) as client:
        page = client.page(collection, limit=images)
        rows = client.info().limits.descriptors_per_image
    ids = page.ids
    if page.sizes is None:
        raise click.UsageError(f"collection {collection!r} has no images; load some first")
    sizes = DescriptorSizes(page.sizes.local, page.sizes.global_)
    rng = np.random.default_rng(0)
    bodies = [
        rerank_body(_random_query(rng, rows, sizes), ids, collection, timeout_ms=600_000)
        for _ in range(requests)
    ]
    headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
    started = time.perf_counter()
    latencies, refused = asyncio.run(_load(url, headers, bodies, concurrency))
    wall = time.perf_counter() - started
    table = Table(
        caption=f"{len(latencies)} answers of {requests} requests, {refused} refused (429), "
        f"{concurrency} at a time, {len(ids)} images each",
        caption_justify="left",
    )
    for title in ("requests/s", "p50 ms", "p90 ms", "p99 ms", "max ms"):
        table.add_column(title, justify="right")
    marks = np.percentile(latencies or [0.0], [50, 90, 99, 100]) * 1000
    table.add_row(f"{len(latencies) / wall:.2f}", *(f"{mark:.0f}" for mark in marks))
    console.print(table)


def _random_query(rng: np.random.Generator, rows: int, sizes: DescriptorSizes) -> ImageDescriptors:
    global_ = None if sizes.global_dim is None else rng.standard_normal(sizes.global_dim)
    return image_from_arrays(rng.standard_normal((rows, sizes.local_dim)), None, global_)


async def _load(
    url: str, headers: dict[str, str], bodies: list[dict[str, object]], concurrency: int
) -> tuple[list[float], int]:
    """(seconds of every answered request, how many were refused)."""
    places = asyncio.Semaphore(concurrency)
    latencies: list[float] = []
    refused = 0

    async with httpx.AsyncClient(
        base_url=url, headers=sendable(headers), timeout=600, **way_to(url)
    ) as http:

        async def one(body: dict[str, object]) -> None:
            nonlocal refused
            async with places:
                started = time.perf_counter()
                try:
                    response = await http.post("/rerank", json=body)
                except httpx.HTTPError as error:
                    raise ClientError("unreachable", f"{url}: {error}") from None
                if response.status_code == 429:
                    refused += 1
                elif response.is_success:
                    latencies.append(time.perf_counter() - started)
                else:
                    raise ClientError("failed", f"{url}: {response.text}", response.status_code)

        with progress_bar("Requesting", len(bodies)) as advance:
            for done in asyncio.as_completed([one(body) for body in bodies]):
                await done
                advance(1)
    return latencies, refused
