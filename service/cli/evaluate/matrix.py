"""locore eval matrix"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.table import Table

from model.checkpoint import LoadedModel, load_checkpoint
from model.config import DEFAULT_CHECKPOINT
from model.descriptor_file import read_images
from model.descriptors import ImageDescriptors
from model.evaluation.descriptor_types import DESCRIPTOR_TYPES, EXTRACTORS
from model.evaluation.grocery import FOLDS
from model.evaluation.matrix import (
    FIRST_STAGE,
    WITHOUT_LEARNING,
    Cell,
    DomainFiles,
    Figures,
    Gain,
    cells,
    model_figures,
    summary,
    untrained_figures,
)
from service.cli.common import (
    any_checkpoint,
    any_path,
    console,
    device_of,
    device_option,
    existing_folder,
    tracked,
)

_Function = TypeVar("_Function", bound=Callable[..., Any])


def cell_options(function: _Function) -> _Function:
    """Which cells are made: domains, their descriptor files, classes kept apart, queries."""
    for option in (
        click.option(
            "--every",
            type=click.IntRange(1),
            default=1,
            show_default=True,
            help="One query of so many.",
        ),
        click.option("--fold", type=click.IntRange(0, FOLDS - 1), default=0, show_default=True),
        click.option(
            "--held-out",
            multiple=True,
            help="A domain of whose classes all but those of --fold were trained on.",
        ),
        click.option(
            "--descriptors",
            required=True,
            type=existing_folder,
            help="The folder of descriptor files, DOMAIN-EXTRACTOR.h5, DOMAIN being the name of a "
            "folder of --data and EXTRACTOR lite0, lite2, sift or xfeat.",
        ),
        click.option(
            "--data",
            "folders",
            multiple=True,
            required=True,
            type=existing_folder,
            help="A domain: a folder that has labels.csv (path, label, role). May be repeated.",
        ),
    ):
        function = option(function)
    return function


@click.command()
@cell_options
@click.option(
    "--checkpoint",
    "checkpoints",
    multiple=True,
    type=any_checkpoint,
    default=(DEFAULT_CHECKPOINT,),
    help="What to compare: a file, or the name of a shipped one. May be repeated; default: "
    "relations.",
)
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(list(DESCRIPTOR_TYPES)),
    help="These types of descriptors alone. May be repeated.",
)
@click.option("--json", "json_path", type=any_path, help="Write the figures here too.")
@device_option
def matrix(
    folders: tuple[Path, ...],
    descriptors: Path,
    checkpoints: tuple[Path, ...],
    held_out: tuple[str, ...],
    fold: int,
    every: int,
    only: tuple[str, ...],
    json_path: Path | None,
    device: str,
) -> None:
    """Domains x descriptor types x re-rankers: R@1 / mAP@R, and what checkpoints gain.

    What learns nothing has the setting that is best in each cell; a checkpoint has its own.
    """
    unknown = set(held_out) - {folder.name for folder in folders}
    if unknown:
        raise click.UsageError(f"--held-out {min(unknown)}: no folder of --data has that name")
    if json_path is not None and (json_path.is_dir() or not json_path.parent.is_dir()):
        raise click.UsageError(f"{json_path}: no file to write to")
    models = [load_checkpoint(path, device_of(device)) for path in checkpoints]
    domains = [
        DomainFiles(folder, descriptor_files(descriptors, folder.name)) for folder in folders
    ]
    for domain in domains:
        if not domain.files:
            raise click.UsageError(f"{descriptors}: no file {domain.name}-EXTRACTOR.h5")
    figures: list[Figures] = []
    every_cell = cells(
        domains,
        images_with_globals,
        held_out=dict.fromkeys(held_out, fold),
        every=every,
        types=only or tuple(DESCRIPTOR_TYPES),
    )
    for cell in every_cell:
        figures += untrained_figures(cell)
        figures += [_judged(cell, model) for model in models if _fits(cell, model)]
    if not figures:
        raise click.UsageError(f"{descriptors}: no files for {', '.join(only)}")
    names = [FIRST_STAGE, *WITHOUT_LEARNING, *dict.fromkeys(m.config.name for m in models)]
    console.print(_cell_table(figures, names))
    console.print(_summary_table(figures, names[1:]))
    if json_path is not None:
        _write(figures, json_path)


def descriptor_files(folder: Path, domain: str) -> dict[str, Path]:
    """Of a domain, by extractor."""
    paths = {name: folder / f"{domain}-{name}.h5" for name in EXTRACTORS}
    return {name: path for name, path in paths.items() if path.exists()}


def images_with_globals(path: Path, ids: Sequence[str]) -> dict[str, ImageDescriptors]:
    """Raises click.UsageError where one is missing, or has no global."""
    images = read_images(path, ids, track=tracked)[1]
    bare = [image_id for image_id, image in images.items() if image.global_ is None]
    if bare:
        raise click.UsageError(f"{path}: images have no global descriptor, {bare[0]} for one")
    return images


def _fits(cell: Cell, model: LoadedModel) -> bool:
    wanted = model.config.sizes
    return wanted is None or wanted.local_dim == cell.task.gallery[0].sizes.local_dim


def _judged(cell: Cell, model: LoadedModel) -> Figures:
    def progress(queries: Iterable[int]) -> Iterable[int]:
        label = f"{cell.domain}, {cell.descriptors}: {model.config.name}"
        return tracked(queries, label, len(cell.task.queries))

    return model_figures(cell, model, progress)


def _cell_table(figures: Sequence[Figures], names: Sequence[str]) -> Table:
    table = Table(caption="R@1 / mAP@R in percent", caption_justify="left")
    for title in ("domain", "descriptors"):
        table.add_column(title, overflow="fold")
    for name in names:
        table.add_column(name, justify="right")
    by_cell: dict[tuple[str, str], dict[str, str]] = {}
    for row in figures:
        cell = by_cell.setdefault((row.domain, row.descriptors), {})
        value = f"{100 * row.recall.mean():.1f} / {100 * row.average_precision.mean():.1f}"
        cell[row.contender] = value
    for cell_name, values in by_cell.items():
        table.add_row(*cell_name, *(values.get(name, "") for name in names))
    return table


def _summary_table(figures: Sequence[Figures], names: Sequence[str]) -> Table:
    table = Table(
        caption="means over cells; gains in points, R@1 / mAP@R, with standard errors over cells; "
        "the best is that of first stage, Chamfer and k-reciprocal in each cell",
        caption_justify="left",
    )
    table.add_column("re-ranker", overflow="fold")
    for title in (
        "cells",
        "mean",
        "ms a list",
        "over the best",
        "worst over first",
        "worst over Chamfer",
    ):
        table.add_column(title, justify="right")
    for name in names:
        if not any(row.contender == name for row in figures):
            continue
        of = summary(figures, name)
        table.add_row(
            name,
            str(of.cells),
            f"{of.recall:.1f} / {of.average_precision:.1f}",
            f"{of.milliseconds:.1f}",
            " / ".join(f"{gain.mean:+.1f} ± {gain.error:.1f}" for gain in of.over_best),
            _worst(of.over_first),
            _worst(of.over_chamfer),
        )
    return table


def _worst(gains: tuple[Gain, Gain]) -> str:
    return " / ".join(f"{gain.worst:+.1f} ({gain.worst_cell})" for gain in gains)


def _write(figures: Sequence[Figures], path: Path) -> None:
    rows = [
        asdict(row)
        | {"recall": row.recall.mean(), "average_precision": row.average_precision.mean()}
        for row in figures
    ]
    path.write_text(json.dumps(rows, indent=1) + "\n")
