"""locore eval storage"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import partial
from itertools import product
from pathlib import Path

import click
import numpy as np

from model.checkpoint import LoadedModel, load_checkpoint
from model.config import DEFAULT_CHECKPOINT
from model.descriptors import ImageDescriptors
from model.evaluation.cells import (
    Cell,
    DomainFiles,
    cells,
    descriptor_files,
    images_with_globals,
)
from model.evaluation.descriptor_types import DESCRIPTOR_TYPES
from model.evaluation.storage_loss import Quality, Storage, loss, stored_quality
from model.evaluation.storage_loss_table import choices, loss_table
from model.quantisation import STORE_DTYPES, StoreDtype
from model.random_images import random_image
from service.cli.bench.store import fetch_cold
from service.cli.common import (
    any_checkpoint,
    any_path,
    console,
    device_of,
    device_option,
    tracked,
)
from service.cli.evaluate.matrix import cell_options
from service.gallery.embedded import EmbeddedValkey
from service.gallery.record import GalleryRecord, as_stored, pack_record
from service.gallery.store_connection import connect_store

SHORTLIST, _FETCHES = 100, 50
_PLOTS = (".svg", ".png", ".pdf")


@click.command()
@cell_options
@click.option("--checkpoint", type=any_checkpoint, default=DEFAULT_CHECKPOINT)
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(list(DESCRIPTOR_TYPES)),
    default=("Lite0", "RootSIFT"),
    show_default=True,
    help="Types of descriptors. May be repeated.",
)
@click.option(
    "--locals",
    "counts",
    multiple=True,
    type=click.IntRange(1),
    default=(24, 12),
    show_default=True,
    help="Numbers of locals per image, both pooled and only the strongest. May be repeated.",
)
@click.option("--json", "json_path", type=any_path, help="Also write the figures here.")
@click.option("--plot", "plot_path", type=any_path, help="Draw the curve here, as .svg or .png.")
@device_option
def storage(
    folders: tuple[Path, ...],
    descriptors: Path,
    checkpoint: Path,
    held_out: tuple[str, ...],
    fold: int,
    every: int,
    only: tuple[str, ...],
    counts: tuple[int, ...],
    json_path: Path | None,
    plot_path: Path | None,
    device: str,
) -> None:
    """Bytes per image against R@1 and mAP@R: what a smaller gallery costs.

    The gallery is as read from a store; the query and the first stage's lists are not reduced.
    Losses are relative to float32 with all locals. Also shows the time to fetch and decode 100
    images from a private Valkey.
    """
    _check_outputs(json_path, plot_path)
    unknown = set(held_out) - {folder.name for folder in folders}
    if unknown:
        raise click.UsageError(f"--held-out {min(unknown)}: no folder of --data has that name")
    model = load_checkpoint(checkpoint, device_of(device))
    image = random_image(np.random.default_rng(0), model.config)
    forms = _forms(image, counts)
    qualities: dict[Storage, dict[str, Quality]] = {form: {} for form in forms}
    every_cell = cells(
        [DomainFiles(folder, descriptor_files(descriptors, folder.name)) for folder in folders],
        partial(images_with_globals, track=tracked),
        held_out=dict.fromkeys(held_out, fold),
        every=every,
        types=only,
    )
    for cell in every_cell:
        for form in forms:
            qualities[form][f"{cell.domain}, {cell.descriptors}"] = _quality(cell, form, model)
    reference = qualities[forms[0]]
    if not reference:
        raise click.UsageError(f"{descriptors}: no files for {', '.join(only)}")
    losses = {form: loss(qualities[form], reference) for form in forms}
    seconds = asyncio.run(_cold_seconds(image, forms))
    console.print(loss_table(qualities, losses, seconds, SHORTLIST))
    for line in choices(losses):
        console.print(line, highlight=False)
    if json_path is not None:
        rows = [
            asdict(form) | {"cells": qualities[form], "cold": seconds[form]} | asdict(losses[form])
            for form in forms
        ]
        json_path.write_text(json.dumps(rows, indent=1) + "\n")
    if plot_path is not None:
        # Imported here: only this needs matplotlib.
        from model.evaluation.storage_plot import draw

        draw(losses, plot_path)


def _check_outputs(json_path: Path | None, plot_path: Path | None) -> None:
    for path in (json_path, plot_path):
        if path is not None and (path.is_dir() or not path.parent.is_dir()):
            raise click.UsageError(f"{path}: cannot be written")
    if plot_path is not None and plot_path.suffix not in _PLOTS:
        raise click.UsageError(f"{plot_path}: must end in one of {', '.join(_PLOTS)}")


def _forms(image: ImageDescriptors, counts: Sequence[int]) -> list[Storage]:
    """The forms to compare; all locals in float32 come first."""
    fewer = [(count, pooled) for count in counts if count < image.count for pooled in (True, False)]
    return [
        Storage(dtype, count, pooled, _size(image.strongest(count), dtype))
        for dtype, (count, pooled) in [
            ("float32", (image.count, False)),
            *product(STORE_DTYPES[1:], [(image.count, False), *fewer]),
        ]
    ]


def _size(image: ImageDescriptors, dtype: StoreDtype) -> int:
    return len(pack_record("", "", GalleryRecord(image), dtype))


def _quality(cell: Cell, form: Storage, model: LoadedModel) -> Quality:
    gallery = {
        str(place): image if form.pooled else image.strongest(form.locals)
        for place, image in enumerate(cell.task.gallery)
    }
    stored = as_stored(gallery, form.dtype, form.locals if form.pooled else None)

    def progress(queries: Iterable[int]) -> Iterable[int]:
        label = f"{cell.domain}, {cell.descriptors}: {form.name}"
        return tracked(queries, label, len(cell.task.queries))

    return stored_quality(cell, list(stored.values()), model, progress)


async def _cold_seconds(image: ImageDescriptors, forms: Sequence[Storage]) -> dict[Storage, float]:
    """The median time to fetch and decode a list of such images. The forms take turns, so that
    other load on the machine affects all alike."""
    ids = [f"{place:03d}" for place in range(SHORTLIST)]
    measured: dict[Storage, list[float]] = {form: [] for form in forms}
    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedValkey(Path(folder))
        await server.start()
        store = connect_store(server.url)
        try:
            for form in forms:
                record = GalleryRecord(image.strongest(form.locals))
                records = {i: pack_record(form.name, i, record, form.dtype) for i in ids}
                await store.put(form.name, records, image.sizes, ttl_seconds=None)
            for _ in range(_FETCHES):
                for form in forms:
                    measured[form].append(await fetch_cold(store, form.name, ids))
        finally:
            await store.close()
            await server.stop()
    return {form: float(np.median(times)) for form, times in measured.items()}
