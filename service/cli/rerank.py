"""locore rerank"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import h5py
import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from locore_client import Client
from locore_client.contract import RerankResponse
from model.descriptor_file import DescriptorFileError, DescriptorReader
from model.descriptors import ImageDescriptors, stacked_globals
from model.evaluation.retrieval import first_stage_order
from model.extraction.images import read_image
from model.extraction.registry import load_extractor
from model.formats.text import lines_of
from model.learnt_metric import Metric, load_metric
from model.windows import DIRECTIONS
from service.api.schemas import MAX_SHORTLIST
from service.cli.common import (
    any_path,
    console,
    descriptor_dim_option,
    metric_option,
    service_options,
)


@click.command()
@click.argument("query", type=any_path)
@click.option(
    "--gallery",
    type=any_path,
    help="Descriptor file of the gallery; the shortlist is the nearest images by globals.",
)
@click.option(
    "--ids", type=any_path, help="Instead of --gallery: a file with the shortlist, one id per line."
)
@click.option("--query-id", help="The image to use if QUERY is a descriptor file with several.")
@click.option(
    "--top",
    type=click.IntRange(1, MAX_SHORTLIST),
    default=100,
    show_default=True,
    help="Length of the shortlist.",
)
@click.option("-n", "--show", type=click.IntRange(1), default=10, show_default=True)
@click.option("--alpha", type=float)
@click.option("--temperature", type=float)
@click.option("--window", type=int)
@click.option("--stride", type=int)
@click.option("--direction", type=click.Choice(DIRECTIONS))
@metric_option
@descriptor_dim_option
@click.option("--json", "as_json", is_flag=True, help="Print the service's answer as JSON.")
@service_options
def rerank(
    query: Path,
    gallery: Path | None,
    ids: Path | None,
    query_id: str | None,
    top: int,
    show: int,
    metric: Path | None,
    descriptor_dim: int | None,
    as_json: bool,
    url: str,
    api_key: str | None,
    collection: str,
    **options: Any,
) -> None:
    """Re-rank a shortlist for QUERY, an image or a descriptor file, with a running service.

    With --metric, the nearest images of --gallery are found in that metric, and its cosines are the
    first stage's scores. The service itself re-ranks in a metric only if it was started with one.
    """
    if (gallery is None) == (ids is None):
        raise click.UsageError("give the shortlist with either --gallery or --ids")
    reader = None if gallery is None else DescriptorReader(gallery, descriptor_dim)
    image = _query(query, query_id, reader, descriptor_dim)
    request_options = {name: value for name, value in options.items() if value is not None}
    if reader is not None:
        learnt = None if metric is None else load_metric(metric)
        try:
            order, cosines = _nearest(image, reader, learnt, top)
        except ValueError as error:
            raise click.UsageError(f"{query} with {gallery}: {error}") from None
        shortlist = [reader.ids[place] for place in order]
        if learnt is not None:
            request_options["global_scores"] = cosines
    elif metric is not None:
        raise click.UsageError("--metric needs --gallery, whose images it compares")
    else:
        assert ids is not None  # noqa: S101
        shortlist = _read_ids(ids)[:top]
    with Client(url, api_key) as client:
        answer = client.rerank(image, shortlist, collection, top_n=show, **request_options)
    if as_json:
        console.print_json(json.dumps(answer.model_dump()), ensure_ascii=True)
    else:
        console.print(_table(answer), highlight=False)


def _nearest(
    image: ImageDescriptors, reader: DescriptorReader, metric: Metric | None, top: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Places of the nearest images by their globals, best first, and their cosines. Raises
    ValueError for descriptors of different sizes."""
    if metric is None:
        globals_ = reader.globals()
    else:
        image = metric.apply(image)
        gallery = [metric.apply(reader[place]) for place in range(len(reader))]
        stacked = stacked_globals(gallery)
        if stacked is None:
            raise DescriptorFileError("images without globals have no cosine in a metric")
        globals_ = stacked
    order = first_stage_order(image, globals_)[:top]
    assert image.global_ is not None  # noqa: S101
    return order, globals_[order] @ image.global_


def _query(
    path: Path, query_id: str | None, gallery: DescriptorReader | None, descriptor_dim: int | None
) -> ImageDescriptors:
    if path.is_file() and h5py.is_hdf5(path):
        reader = DescriptorReader(path, descriptor_dim)
        if query_id is None and len(reader) == 1:
            return reader[0]
        if query_id not in reader.ids:
            raise click.UsageError(
                f"{path}: choose one of its {len(reader)} images with --query-id"
            )
        return reader[reader.ids.index(query_id)]
    image = read_image(path)
    name = (gallery.extractor if gallery else None) or "efficientnet-lite0"
    count = gallery.descriptors_per_image if gallery else 48
    return load_extractor(name).extract(image, count).for_reranking()


def _read_ids(path: Path) -> list[str]:
    return [line.strip() for line in lines_of(path) if line.strip()]


def _table(answer: RerankResponse) -> Table:
    usage, timings = answer.usage, answer.timings_ms
    table = Table(
        caption=f"{answer.model}: {usage.images} images, {usage.windows} windows, "
        f"{timings.total:.0f} ms of which {timings.inference:.0f} inference",
        caption_justify="left",
    )
    for title in ("rank", "was", "", "score"):
        table.add_column(title, justify="right")
    # A truncated id would be useless.
    table.add_column("id", overflow="fold")
    up, down = ("^", "v") if console.options.ascii_only else ("▲", "▼")
    for rank, result in enumerate(answer.results, start=1):
        rise = result.index + 1 - rank
        moved = (
            "" if not rise else f"[green]{up}{rise}[/]" if rise > 0 else f"[red]{down}{-rise}[/]"
        )
        score = f"{result.relevance_score:.4f}"
        table.add_row(str(rank), str(result.index + 1), moved, score, result.id)
    return table
