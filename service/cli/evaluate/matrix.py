"""locore eval matrix"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click

from model.checkpoint import LoadedModel, load_checkpoint
from model.config import DEFAULT_CHECKPOINT
from model.evaluation.cell_tables import cell_table, summary_table, write_figures
from model.evaluation.cells import (
    FIRST_STAGE,
    WITHOUT_LEARNING,
    Cell,
    DomainFiles,
    Figures,
    cells,
    descriptor_files,
    images_with_globals,
    model_figures,
    untrained_figures,
)
from model.evaluation.descriptor_types import DESCRIPTOR_TYPES
from model.evaluation.grocery import FOLDS
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
    """Adds the options that choose the cells: domains, descriptor files, held-out classes,
    queries."""
    for option in (
        click.option(
            "--every",
            type=click.IntRange(1),
            default=1,
            show_default=True,
            help="Use one query of this many.",
        ),
        click.option("--fold", type=click.IntRange(0, FOLDS - 1), default=0, show_default=True),
        click.option(
            "--held-out",
            multiple=True,
            help="A domain that was trained on: only the classes of --fold are evaluated.",
        ),
        click.option(
            "--descriptors",
            required=True,
            type=existing_folder,
            help="The folder of descriptor files, DOMAIN-EXTRACTOR.h5. DOMAIN is the name of a "
            "folder of --data, EXTRACTOR is lite0, lite2, sift or xfeat.",
        ),
        click.option(
            "--data",
            "folders",
            multiple=True,
            required=True,
            type=existing_folder,
            help="A domain: a folder with a labels.csv (path, label, role). May be repeated.",
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
    help="A checkpoint to compare: a file, or the name of a shipped one. May be repeated; default: "
    "relations.",
)
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(list(DESCRIPTOR_TYPES)),
    help="Only these types of descriptors. May be repeated.",
)
@click.option("--json", "json_path", type=any_path, help="Also write the figures here.")
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
    """Domains x descriptor types x re-rankers: R@1 / mAP@R, and the gains of the checkpoints.

    Methods without training have the best setting in each cell; a checkpoint has its own.
    """
    unknown = set(held_out) - {folder.name for folder in folders}
    if unknown:
        raise click.UsageError(f"--held-out {min(unknown)}: no folder of --data has that name")
    if json_path is not None and (json_path.is_dir() or not json_path.parent.is_dir()):
        raise click.UsageError(f"{json_path}: cannot be written")
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
        partial(images_with_globals, track=tracked),
        held_out=dict.fromkeys(held_out, fold),
        every=every,
        types=only or tuple(DESCRIPTOR_TYPES),
    )
    for cell in every_cell:
        figures += untrained_figures(cell)
        figures += [_judge(cell, model) for model in models if cell.fits(model.config)]
    if not figures:
        raise click.UsageError(f"{descriptors}: no files for {', '.join(only)}")
    names = [FIRST_STAGE, *WITHOUT_LEARNING, *dict.fromkeys(m.config.name for m in models)]
    console.print(cell_table(figures, names))
    console.print(summary_table(figures, names[1:]))
    if json_path is not None:
        write_figures(figures, json_path)


def _judge(cell: Cell, model: LoadedModel) -> Figures:
    def progress(queries: Iterable[int]) -> Iterable[int]:
        label = f"{cell.domain}, {cell.descriptors}: {model.config.name}"
        return tracked(queries, label, len(cell.task.queries))

    return model_figures(cell, model, progress)
