"""The loss of quality if a gallery is stored in fewer bytes, as a table and in words."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from rich.table import Table

from model.evaluation.storage_loss import Loss, Quality, Storage, smallest

_LOSSLESS, _NEARLY = (0.2, 0.5), 2.0
"""Points of mAP@R: what the default may lose in the mean and in the worst cell, and what the
smallest form may lose in the mean."""


def loss_table(
    qualities: Mapping[Storage, Mapping[str, Quality]],
    losses: Mapping[Storage, Loss],
    seconds: Mapping[Storage, float],
    shortlist: int,
) -> Table:
    """`seconds`: to fetch and decode `shortlist` images."""
    cells = len(next(iter(qualities.values())))
    table = Table(
        caption=f"percent, means over {cells} cells; losses in points against the first row;"
        f" cold: {shortlist} images fetched and decoded",
        caption_justify="left",
    )
    table.add_column("stored as")
    for title in ("locals", "bytes", "R@1 / mAP@R", "loss", "at worst", "cold ms"):
        table.add_column(title, justify="right")
    for form, of in losses.items():
        recall, precision = np.mean(list(qualities[form].values()), axis=0)
        table.add_row(
            form.dtype,
            f"{form.locals}{' pooled' if form.pooled else ''}",
            f"{form.size:,}",
            f"{recall:.1f} / {precision:.1f}",
            f"{of.recall:.2f} / {of.precision:.2f}",
            f"{of.worst:.2f}",
            f"{1000 * seconds[form]:.1f}",
        )
    return table


def choices(losses: Mapping[Storage, Loss]) -> list[str]:
    """The smallest forms that lose little, in words."""
    mean, worst = _LOSSLESS
    smallest_by_limit = {
        f"at most {mean:g} points of mAP@R in the mean and {worst:g} in the worst cell": smallest(
            losses, mean, worst
        ),
        f"at most {_NEARLY:g} in the mean": smallest(losses, _NEARLY),
    }
    return [
        f"The smallest that loses {limit}: "
        + ("none" if form is None else f"{form.name} ({form.size:,} bytes)")
        for limit, form in smallest_by_limit.items()
    ]
