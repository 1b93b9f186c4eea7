"""locore bench"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from pathlib import Path

import click
import httpx
import numpy as np
from rich.table import Table

from locore_client import Client, ClientError, rerank_body
from locore_client.bodies import to_json
from locore_client.contract import MAX_TIMEOUT_MS
from locore_client.exchange import sendable
from locore_client.proxies import way_to
from model.checkpoint import load_checkpoint
from model.config import DEFAULT_CHECKPOINT
from model.descriptors import DescriptorSizes, ImageDescriptors
from model.evaluation.latency import WARM, batch_speeds, profiled, speeds
from service.cli.bench_store import bench_store
from service.cli.common import (
    any_checkpoint,
    console,
    device_of,
    device_option,
    progress_bar,
    service_options,
    tracked,
)
from service.cli.open_loop import OpenLoop, open_loop

_BATCHES = (1, 2, 4, 8)
_BODIES = 32
"""Queries that requests share, of each length of list."""


@click.group()
def bench() -> None:
    """Measure speed: of the model alone, of a store, or of a running service under load."""


bench.add_command(bench_store)


@bench.command("model")
@click.option("--checkpoint", type=any_checkpoint, default=DEFAULT_CHECKPOINT)
@click.option("--images", type=click.IntRange(1), default=100, show_default=True)
@click.option("--repeats", type=click.IntRange(1), default=10, show_default=True)
@click.option(
    "--published", is_flag=True, help="LOCORE's Longformer at its published size too: seconds."
)
@click.option("--profile", is_flag=True, help="Where the time of a pass goes, by operation.")
@device_option
def bench_model(
    checkpoint: Path, images: int, repeats: int, published: bool, profile: bool, device: str
) -> None:
    """Milliseconds of a list beside other re-rankers, and of a window by how many share a pass;
    all take turns in one run."""
    model = load_checkpoint(checkpoint, device_of(device))
    said = f"{images} images, {model.device}, scan by {model.kernel}; median of {repeats}, in turns"

    def progress(rounds: Iterable[int]) -> Iterable[int]:
        return tracked(rounds, "Measuring", repeats + WARM)

    try:
        lists = speeds(model, images, repeats, published=published, progress=progress)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    own = lists[model.config.name].median
    table = Table(caption=f"one list of {said}; times of ours", caption_justify="left")
    table.add_column("re-ranker")
    for title in ("weights", "ms a list", "quarters", "times ours"):
        table.add_column(title, justify="right")
    for name, speed in lists.items():
        low, high = np.percentile(speed.seconds, [25, 75])
        table.add_row(
            name,
            f"{speed.weights:,}" if speed.weights else "",
            f"{1000 * speed.median:.1f}",
            f"{1000 * low:.1f} to {1000 * high:.1f}",
            f"{speed.median / own:.2f}",
        )
    console.print(table)
    batches = batch_speeds(model, images, _BATCHES, repeats, progress)
    table = Table(caption=f"{model.config.name}, {said}", caption_justify="left")
    for title in ("windows a pass", "ms a pass", "ms a window", "windows a second, to 1"):
        table.add_column(title, justify="right")
    for size, speed in batches.items():
        table.add_row(
            str(size),
            f"{1000 * speed.median:.1f}",
            f"{1000 * speed.median / size:.1f}",
            f"{batches[1].median * size / speed.median:.2f}",
        )
    console.print(table)
    if profile:
        console.print(profiled(model, images, repeats), soft_wrap=True)


@bench.command("service")
@click.option("--requests", type=click.IntRange(1), default=64, show_default=True)
@click.option("--concurrency", type=click.IntRange(1, 256), default=8, show_default=True)
@click.option(
    "--images",
    type=click.IntRange(1, 1600),
    multiple=True,
    default=(100,),
    show_default=True,
    help="Of a list; several, and lists of these lengths take turns.",
)
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    help="Requests a second, sent whether or not earlier ones were answered.",
)
@click.option(
    "--slo",
    type=click.IntRange(1, MAX_TIMEOUT_MS),
    help="Milliseconds in which an answer is of use, sent as timeout_ms; with --rate.",
)
@service_options
def bench_service(
    requests: int,
    concurrency: int,
    images: tuple[int, ...],
    rate: float | None,
    slo: int | None,
    url: str,
    api_key: str | None,
    collection: str,
) -> None:
    """Latency under load, with random queries over the images of a collection: of a number of
    clients that wait for their answers, or, by --rate and --slo, of requests that come on their
    own, and how many were answered in time."""
    if (rate is None) != (slo is None):
        raise click.UsageError("--rate and --slo go together")
    with Client(url, api_key) as client:
        page = client.page(collection, limit=max(images))
        rows = client.info().limits.descriptors_per_image
    if page.sizes is None:
        raise click.UsageError(f"collection {collection!r} has no images; load some first")
    sizes = DescriptorSizes(page.sizes.local, page.sizes.global_)
    rng = np.random.default_rng(0)
    bodies = [
        to_json(
            rerank_body(
                _random_query(rng, rows, sizes),
                page.ids[: images[n % len(images)]],
                collection,
                timeout_ms=slo or MAX_TIMEOUT_MS,
            )
        )
        for n in range(min(requests, _BODIES * len(images)))
    ]
    headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
    lengths = " and ".join(str(min(length, len(page.ids))) for length in images)
    if rate is not None and slo is not None:
        loop = open_loop(url, headers, bodies, requests=requests, rate=rate, slo_seconds=slo / 1000)
        _show_open_loop(loop, rate, lengths)
        return
    started = time.perf_counter()
    latencies, refused = asyncio.run(_load(url, headers, bodies, requests, concurrency))
    wall = time.perf_counter() - started
    table = Table(
        caption=f"{len(latencies)} answers of {requests} requests, {refused} refused (429), "
        f"{concurrency} at a time, {lengths} images each",
        caption_justify="left",
    )
    for title in ("requests/s", "p50 ms", "p90 ms", "p99 ms", "max ms"):
        table.add_column(title, justify="right")
    marks = np.percentile(latencies or [0.0], [50, 90, 99, 100]) * 1000
    table.add_row(f"{len(latencies) / wall:.2f}", *(f"{mark:.0f}" for mark in marks))
    console.print(table)


def _show_open_loop(loop: OpenLoop, rate: float, lengths: str) -> None:
    answered = [answer.seconds for answer in loop.answered]
    table = Table(
        caption=f"{len(loop.answers)} requests at {rate:g} a second, deadline "
        f"{1000 * loop.slo_seconds:.0f} ms, {lengths} images each",
        caption_justify="left",
    )
    late = len(answered) - len(loop.in_time)
    others = len(loop.answers) - loop.count(200, 429, 504)
    p50, p99 = np.percentile(answered or [0.0], [50, 99]) * 1000
    cells = {
        "goodput/s": f"{loop.goodput:.2f}",
        "in time": len(loop.in_time),
        "late": late,
        "429": loop.count(429),
        "504": loop.count(504),
        "errors": others,
        "p50 ms": f"{p50:.0f}",
        "p99 ms": f"{p99:.0f}",
    }
    for title in cells:
        table.add_column(title, justify="right")
    table.add_row(*map(str, cells.values()))
    console.print(table)


def _random_query(rng: np.random.Generator, rows: int, sizes: DescriptorSizes) -> ImageDescriptors:
    global_ = None if sizes.global_dim is None else rng.standard_normal(sizes.global_dim)
    locals_ = rng.standard_normal((rows, sizes.local_dim))
    return ImageDescriptors(locals_, np.zeros(rows, np.uint8), global_)


async def _load(
    url: str, headers: dict[str, str], bodies: list[bytes], requests: int, concurrency: int
) -> tuple[list[float], int]:
    """(seconds of every answered request, how many were refused)."""
    places = asyncio.Semaphore(concurrency)
    latencies: list[float] = []
    refused = 0
    sent = {"Content-Type": "application/json", **headers}

    async with httpx.AsyncClient(
        base_url=url, headers=sendable(sent), timeout=600, **way_to(url)
    ) as http:

        async def one(body: bytes) -> None:
            nonlocal refused
            async with places:
                started = time.perf_counter()
                try:
                    response = await http.post("/rerank", content=body)
                except httpx.HTTPError as error:
                    raise ClientError("unreachable", f"{url}: {error}") from None
                if response.status_code == 429:
                    refused += 1
                elif response.is_success:
                    latencies.append(time.perf_counter() - started)
                else:
                    raise ClientError("failed", f"{url}: {response.text}", response.status_code)

        with progress_bar("Requesting", requests) as advance:
            asked = [one(bodies[n % len(bodies)]) for n in range(requests)]
            for done in asyncio.as_completed(asked):
                await done
                advance(1)
    return latencies, refused
