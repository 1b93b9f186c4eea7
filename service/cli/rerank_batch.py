"""locore rerank-batch"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import click
import torch

from model.checkpoint import load_checkpoint
from model.config import DEFAULT_CHECKPOINT
from model.descriptor_file import DescriptorReader
from model.formats.resumable_lines import ResumableLines, fingerprint, partial_of
from model.formats.shortlists import Shortlist
from model.shortlist_sources import ShortlistSource
from model.windows import DIRECTIONS
from service.api.schemas import MAX_SHORTLIST
from service.cli.common import (
    any_checkpoint,
    any_path,
    descriptor_dim_option,
    device_of,
    device_option,
    metric_option,
    progress_bar,
    storage_options,
)
from service.gallery.collection_metrics import metric_for
from service.offline.file_reranker import OfflineOptions, OfflineReranker

_Command = TypeVar("_Command", bound=Callable[..., Any])


def list_options(command: _Command) -> _Command:
    """Adds the options of a re-ranking, as the fields of POST /rerank. The Ray Data job has them
    too."""
    for option in (
        click.option(
            "--on-missing",
            type=click.Choice(("error", "skip")),
            default="error",
            show_default=True,
            help="For an image without descriptors: stop with an error, or leave it out of its "
            "list.",
        ),
        click.option("--direction", type=click.Choice(DIRECTIONS)),
        click.option("--stride", type=click.IntRange(1, MAX_SHORTLIST)),
        click.option("--window", type=click.IntRange(1, MAX_SHORTLIST)),
        click.option("--temperature", type=click.FloatRange(0, min_open=True)),
        click.option("--alpha", type=click.FloatRange(0, 1), help="Weight of the first stage."),
        click.option("--top-n", type=click.IntRange(1), help="Results per query.  [default: all]"),
    ):
        command = option(command)
    return command


@click.command("rerank-batch")
@click.option("--queries", type=any_path, required=True, help="Descriptor file of the queries.")
@click.option("--gallery", type=any_path, required=True, help="Descriptor file of the gallery.")
@click.option(
    "--shortlists",
    type=any_path,
    help='JSON Lines: {"query": id, "gallery_ids": [...], "global_scores": [...]}; the scores are '
    "optional.",
)
@click.option(
    "--neighbours",
    type=any_path,
    help="Instead: an nn_*.pkl from `locore neighbours`, one list for each image of --queries. "
    "Without either, the lists are found by the globals, as by that command.",
)
@click.option(
    "--top",
    type=click.IntRange(1, MAX_SHORTLIST),
    default=100,
    show_default=True,
    help="Length of a list from --neighbours or by the globals.",
)
@click.option("-o", "--output", type=any_path, required=True, help="The JSON Lines to write.")
@click.option("--resume", is_flag=True, help="Continue an interrupted run, if there is one.")
@click.option("--overwrite", is_flag=True, help="Replace OUTPUT, or start again.")
@list_options
@click.option(
    "--checkpoint",
    type=any_checkpoint,
    default=DEFAULT_CHECKPOINT,
    envvar="LOCORE_CHECKPOINT",
    help="A file, or the name of a shipped one.",
)
@device_option
@click.option(
    "--dtype",
    type=click.Choice(("float32", "bfloat16", "float16")),
    default="float32",
    show_default=True,
    envvar="LOCORE_DTYPE",
    help="The number type that the model computes with.",
)
@storage_options("As in a service, for the same scores")
@click.option(
    "--batch-tokens",
    type=click.IntRange(1),
    default=20_480,
    show_default=True,
    envvar="LOCORE_MAX_BATCH_TOKENS",
    help="Tokens of one forward pass, with padding. Affects the time, never the order.",
)
@click.option(
    "--cache-bytes",
    type=click.IntRange(0),
    default=256 << 20,
    show_default=True,
    envvar="LOCORE_CACHE_BYTES",
    help="Memory for decoded gallery images.",
)
@metric_option
@descriptor_dim_option
def rerank_batch(
    queries: Path,
    gallery: Path,
    shortlists: Path | None,
    neighbours: Path | None,
    top: int,
    output: Path,
    resume: bool,
    overwrite: bool,
    checkpoint: Path,
    device: str,
    dtype: str,
    metric: Path | None,
    descriptor_dim: int | None,
    **request_options: Any,
) -> None:
    """Re-rank the shortlists of any number of queries, from files to a file, without a service.

    Writes one line per query, in their order, with the results of POST /rerank. The same command
    with --resume continues an interrupted run.
    """
    if shortlists is not None and neighbours is not None:
        raise click.UsageError("give --shortlists or --neighbours, not both")
    if resume and overwrite:
        raise click.UsageError("give --resume or --overwrite, not both")
    if resume and output.exists() and not partial_of(output).exists():
        click.echo(f"{output} is complete: nothing is left to do", err=True)
        return
    options = OfflineOptions(**request_options)
    inputs = {
        "--queries": queries,
        "--gallery": gallery,
        "--shortlists": shortlists,
        "--neighbours": neighbours,
        "--checkpoint": checkpoint,
        "--metric": metric,
    }
    with ExitStack() as stack:
        readers = [
            stack.enter_context(DescriptorReader(path, descriptor_dim))
            for path in (queries, gallery)
        ]
        numbers: torch.dtype = getattr(torch, dtype)
        model = load_checkpoint(checkpoint, device_of(device), numbers)
        learnt = None if metric is None else metric_for(metric, model.config)
        reranker = OfflineReranker(model, readers[0], readers[1], options, learnt)
        source = ShortlistSource(readers[0], readers[1], top, MAX_SHORTLIST, shortlists, neighbours)
        total = source.count()
        settings = asdict(options) | {"dtype": dtype, "top": top, "descriptor_dim": descriptor_dim}
        # Settings that only affect the time may differ.
        for name in ("batch_tokens", "cache_bytes"):
            del settings[name]
        inputs_and_settings = {name: fingerprint(path) for name, path in inputs.items()} | {
            "--" + name.replace("_", "-"): value for name, value in settings.items()
        }
        lines = stack.enter_context(
            ResumableLines(output, inputs_and_settings, resume=resume, overwrite=overwrite)
        )
        remaining = source.lists(lines.lines)
        if learnt is not None and shortlists is None:
            # In a metric, the plain cosines of the lists do not count.
            remaining = (replace(one, global_scores=None) for one in remaining)
        summary = _run(reranker, remaining, lines, total)
        lines.finish()
    click.echo(f"{summary} written to {output}", err=True)


def _run(
    reranker: OfflineReranker, lists: Iterator[Shortlist], lines: ResumableLines, total: int
) -> str:
    """Re-ranks the lists and writes the lines. Returns a summary in words."""
    earlier, count, missing = lines.lines, 0, 0
    started = time.perf_counter()
    with progress_bar("Re-ranking", total) as advance:
        advance(earlier)
        for answer in reranker.answers(lists):
            lines.write(answer.as_line())
            count += 1
            missing += len(answer.missing)
            advance(1)
    seconds = time.perf_counter() - started
    words = (
        f"{count} queries re-ranked in {seconds:.1f} s, {count / max(seconds, 1e-9):.1f} a second"
    )
    if earlier:
        words += f" ({earlier} were done before)"
    if missing:
        words += f"; {missing} images of their lists have no descriptors;"
    return words
