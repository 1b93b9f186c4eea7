"""locore eval roxford5k, rparis6k, …+1m, gldv2, sop, inshop, cub200: the published benchmarks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from model.checkpoint import LoadedModel, load_checkpoint
from model.config import DEFAULT_CHECKPOINT
from model.evaluation.benchmark_run import BenchmarkRun, evaluate_benchmark
from model.evaluation.benchmark_table import choice_in_words, figures_table, write_figures
from model.evaluation.benchmarks import BENCHMARKS, Benchmark, files
from model.evaluation.protocols import DIFFICULTIES
from model.windows import DIRECTIONS, Direction
from service.api.errors import UnprocessableError
from service.api.rerank_options import rerank_options
from service.cli.common import (
    any_checkpoint,
    any_path,
    console,
    device_of,
    device_option,
    existing_folder,
    tracked,
)

_SLIDING_TOP = 400


def commands() -> list[click.Command]:
    return [_command(benchmark) for benchmark in BENCHMARKS.values()]


def _command(benchmark: Benchmark) -> click.Command:
    def run(**options: Any) -> None:
        _evaluate(benchmark, **options)

    run.__doc__ = _help(benchmark)
    function: Callable[..., Any] = run
    for option in reversed(_options(benchmark)):
        function = option(function)
    return click.command(benchmark.name)(function)


def _options(benchmark: Benchmark) -> list[Callable[[Callable[..., Any]], Callable[..., Any]]]:
    protocols = click.option(
        "--protocols",
        "difficulties",
        default=",".join(DIFFICULTIES),
        show_default=True,
        callback=_difficulties,
        help="Hard has its own lists, so it takes a second pass.",
    )
    return [
        click.option(
            "--data", type=existing_folder, required=True, help="The folder with these files."
        ),
        click.option(
            "--checkpoint",
            type=any_checkpoint,
            default=DEFAULT_CHECKPOINT,
            help="The checkpoint to evaluate: a file, or the name of a shipped one.",
        ),
        click.option(
            "--descriptor-name",
            default="dinov2",
            show_default=True,
            help="The prefix of the files' names, such as cvnet.",
        ),
        click.option(
            "--neighbours", type=any_path, help="Another first stage instead of nn_….pkl."
        ),
        *([protocols] if benchmark.kind == "revisited" else []),
        click.option(
            "--sliding",
            type=click.Choice(DIRECTIONS),
            help="Re-rank the --top by windows every --stride; default: one window, the top of the "
            "list.",
        ),
        click.option("--top", type=click.IntRange(1), help=f"--sliding: default {_SLIDING_TOP}."),
        click.option(
            "--stride", type=click.IntRange(1), help="--sliding: default the checkpoint's."
        ),
        click.option(
            "--window", type=click.IntRange(1), help="Images of one; default the checkpoint's."
        ),
        click.option(
            "--alpha",
            type=click.FloatRange(0, 1),
            help="Weight of the first stage; default the checkpoint's.",
        ),
        click.option(
            "--temperature",
            type=click.FloatRange(0),
            help="T of the logits; default the checkpoint's.",
        ),
        click.option(
            "--grid",
            is_flag=True,
            help="Search alpha and T from 0 to 1 in steps of 0.1. The result fits the queries that "
            "it was searched on: search on gldv2, whose public queries are for validation, and use "
            "the values elsewhere with --alpha and --temperature.",
        ),
        click.option("--json", "json_path", type=any_path, help="Also write the figures here."),
        device_option,
    ]


def _difficulties(_: click.Context, __: click.Parameter, value: str) -> tuple[str, ...]:
    names = tuple(value.split(","))
    if not set(names) <= set(DIFFICULTIES):
        raise click.BadParameter(f"must be some of {','.join(DIFFICULTIES)}, separated by commas")
    return names


def _help(benchmark: Benchmark) -> str:
    paths = files(benchmark, Path("DATA"))
    needed = "\n    ".join(str(path) for path in paths.needed(benchmark))
    what = {
        "revisited": "mAP and mP@k of Revisited Oxford or Paris, by protocol.\n\n    As published, "
        "junk is moved to the end of a list before its top is re-ranked. For Hard, easy images "
        "are moved too, in a second pass.",
        "landmarks": "mAP@100 of Google Landmarks v2: public, private (the last 750 queries) and "
        "combined.",
        "labelled": "R@k and mAP@R: images of one label are relevant to each other."
        + (
            " Every image is a query and left out of its own list."
            if benchmark.among_themselves
            else ""
        ),
    }[benchmark.kind]
    return f"""{what}

    Needs these files, in the formats of AMES and LOCORE (the globals only for a checkpoint that
    reads them):

    \b
    {needed}

    The images are published at {benchmark.source} by their owners. Descriptors and lists of
    Revisited Oxford and Paris are published at https://github.com/pavelsuma/ames and
    https://github.com/MrZilinXiao/LongContextReranker, with the code that makes all others.
    """


def _evaluate(
    benchmark: Benchmark,
    *,
    data: Path,
    checkpoint: Path,
    descriptor_name: str,
    neighbours: Path | None,
    sliding: Direction | None,
    top: int | None,
    stride: int | None,
    window: int | None,
    alpha: float | None,
    temperature: float | None,
    grid: bool,
    json_path: Path | None,
    device: str,
    difficulties: tuple[str, ...] = DIFFICULTIES,
) -> None:
    if sliding is None and (top is not None or stride is not None):
        raise click.UsageError("--top and --stride need --sliding")
    if grid and (sliding is not None or alpha is not None or temperature is not None):
        raise click.UsageError(
            "--grid searches alpha and T with one window; it cannot be used "
            "with --sliding, --alpha or --temperature"
        )
    if json_path is not None and (json_path.is_dir() or not json_path.parent.is_dir()):
        raise click.UsageError(f"{json_path}: cannot be written")
    if not all(math.isfinite(value) for value in (alpha, temperature) if value is not None):
        raise click.UsageError("--alpha and --temperature must be finite")
    model = load_checkpoint(checkpoint, device_of(device))
    config = model.config
    try:
        options = rerank_options(
            config,
            window or config.rerank.window,
            alpha=alpha,
            temperature=temperature,
            window=window,
            stride=stride,
            direction=sliding,
        )
    except UnprocessableError as error:
        raise click.UsageError(f"--{error}") from None
    length = options.window if sliding is None else top or _SLIDING_TOP
    with_globals = config.sizes is None or config.sizes.global_dim is not None
    paths = files(benchmark, data, descriptor_name, neighbours, with_globals=with_globals)
    run = evaluate_benchmark(
        benchmark, paths, model, options, length, difficulties, grid=grid, track=tracked
    )
    caption = _caption(model, run, sliding, length)
    console.print(figures_table(benchmark, run.rows, caption))
    if run.choice is not None:
        console.print(
            choice_in_words(benchmark, run.choice), markup=False, highlight=False, soft_wrap=True
        )
    if json_path is not None:
        settings = asdict(run.options) | {"direction": sliding, "top": length}
        write_figures(json_path, benchmark, config.name, settings, run.rows, run.choice)


def _caption(
    model: LoadedModel,
    run: BenchmarkRun,
    sliding: Direction | None,
    top: int,
) -> str:
    options = run.options
    how = f"a window of {top}"
    if sliding is not None:
        how = f"top {top}, {sliding}, windows of {options.window} every {options.stride}"
    return (
        f"{run.queries:,} queries, {run.gallery:,} gallery images; {model.config.name}, {how}, "
        f"alpha {options.alpha:g}, T {options.temperature:g}, on {model.device}; percent"
    )
