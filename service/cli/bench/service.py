"""locore bench service"""

from __future__ import annotations

import click
import numpy as np
from rich.table import Table

from locore_client import Client, rerank_body
from locore_client.bodies import to_json
from locore_client.contract import MAX_TIMEOUT_MS
from model.descriptors import DescriptorSizes, ImageDescriptors
from service.cli.bench.closed_loop import ClosedLoop, closed_loop
from service.cli.bench.open_loop import OpenLoop, open_loop
from service.cli.common import (
    console,
    progress_bar,
    service_options,
)

_BODIES = 32
"""Queries that requests share, of each length of list."""


@click.command("service")
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
        offered = open_loop(
            url, headers, bodies, requests=requests, rate=rate, slo_seconds=slo / 1000
        )
        _show_open_loop(offered, rate, lengths)
        return
    with progress_bar("Requesting", requests) as advance:
        loop = closed_loop(url, headers, bodies, requests, concurrency, advance)
    _show_closed_loop(loop, requests, concurrency, lengths)


def _show_closed_loop(loop: ClosedLoop, requests: int, concurrency: int, lengths: str) -> None:
    table = Table(
        caption=f"{len(loop.seconds)} answers of {requests} requests, {loop.refused} refused "
        f"(429), {concurrency} at a time, {lengths} images each",
        caption_justify="left",
    )
    for title in ("requests/s", "p50 ms", "p90 ms", "p99 ms", "max ms"):
        table.add_column(title, justify="right")
    marks = np.percentile(loop.seconds or [0.0], [50, 90, 99, 100]) * 1000
    table.add_row(f"{len(loop.seconds) / loop.wall:.2f}", *(f"{mark:.0f}" for mark in marks))
    console.print(table)
    if not loop.seconds:
        return
    stages = Table(
        caption="p50 of each stage in ms; added: of the answer less the inference",
        caption_justify="left",
    )
    added = [
        1000 * seconds - timings.inference
        for seconds, timings in zip(loop.seconds, loop.timings, strict=True)
    ]
    cells = {
        stage: [getattr(timings, stage) for timings in loop.timings]
        for stage in ("decode", "fetch", "queue", "inference")
    } | {"added": added}
    for title in cells:
        stages.add_column(title, justify="right")
    stages.add_row(*(f"{np.median(values):.1f}" for values in cells.values()))
    console.print(stages)


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
