"""locore bench model"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click
import numpy as np
from rich.table import Table

from model.checkpoint import load_checkpoint
from model.config import DEFAULT_CHECKPOINT
from model.evaluation.latency import WARM, batch_speeds, profiled, speeds
from service.cli.common import any_checkpoint, console, device_of, device_option, tracked

_BATCHES = (1, 2, 4, 8)


@click.command("model")
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
    setting = (
        f"{images} images, {model.device}, scan by {model.kernel}; median of {repeats}, in turns"
    )

    def progress(rounds: Iterable[int]) -> Iterable[int]:
        return tracked(rounds, "Measuring", repeats + WARM)

    try:
        lists = speeds(model, images, repeats, published=published, progress=progress)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    own_list = lists[model.config.name].median
    table = Table(caption=f"one list of {setting}; times of ours", caption_justify="left")
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
            f"{speed.median / own_list:.2f}",
        )
    console.print(table)
    batches = batch_speeds(model, images, _BATCHES, repeats, progress)
    table = Table(caption=f"{model.config.name}, {setting}", caption_justify="left")
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
