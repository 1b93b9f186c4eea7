"""The comparison as tables and as a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from model.evaluation.cells import Figures, Gain, summary


def cell_table(figures: Sequence[Figures], names: Sequence[str]) -> Table:
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


def summary_table(figures: Sequence[Figures], names: Sequence[str]) -> Table:
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


def write_figures(figures: Sequence[Figures], path: Path) -> None:
    rows = [
        asdict(row)
        | {"recall": row.recall.mean(), "average_precision": row.average_precision.mean()}
        for row in figures
    ]
    path.write_text(json.dumps(rows, indent=1) + "\n")
