"""The figures of a published benchmark: first stage, re-ranked and reported, as a table and a
file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from model.evaluation.benchmarks import REPORTED_BY, Benchmark
from model.evaluation.passes import Choice
from model.evaluation.protocols import Figures


@dataclass(frozen=True)
class Row:
    """A protocol's figures, between 0 and 1, over its `queries`."""

    protocol: str
    queries: int
    first_stage: Figures
    reranked: Figures


def figures_table(benchmark: Benchmark, rows: Sequence[Row], caption: str) -> Table:
    reported = benchmark.reported or {}
    if reported:
        caption += f"; reported: by {REPORTED_BY}"
    table = Table(caption=caption, caption_justify="left")
    for title in ("protocol", "queries", "metric", "first stage", "re-ranked"):
        table.add_column(title, justify="left" if title in ("protocol", "metric") else "right")
    if reported:
        table.add_column("reported first stage", justify="right")
        table.add_column("reported re-ranked", justify="right")
    for row in rows:
        for place, metric in enumerate(row.reranked):
            cells = [
                *((row.protocol, f"{row.queries:,}") if place == 0 else ("", "")),
                metric,
                f"{100 * row.first_stage[metric]:.2f}",
                f"{100 * row.reranked[metric]:.2f}",
            ]
            if reported:
                theirs = reported.get((row.protocol, metric))
                both = (theirs.first_stage, theirs.reranked) if theirs else (None, None)
                cells += ["" if value is None else f"{value:.1f}" for value in both]
            table.add_row(*cells)
    return table


def choice_in_words(benchmark: Benchmark, choice: Choice) -> str:
    return (
        f"best of the grid: --alpha {choice.alpha:g} --temperature {choice.temperature:g}, "
        f"{100 * choice.value:.2f} on the very queries that it was searched on: "
        f"{benchmark.name} {', '.join(choice.searched_on)}"
    )


def write_figures(
    path: Path,
    benchmark: Benchmark,
    checkpoint: str,
    settings: Mapping[str, Any],
    rows: Sequence[Row],
    choice: Choice | None,
) -> None:
    """Writes JSON: measured figures between 0 and 1, reported ones in percent, as published."""
    reported = [
        {"protocol": protocol, "metric": metric} | asdict(figures)
        for (protocol, metric), figures in (benchmark.reported or {}).items()
    ]
    content = {
        "benchmark": benchmark.name,
        "checkpoint": checkpoint,
        "settings": settings,
        "protocols": [asdict(row) for row in rows],
        "grid": None if choice is None else asdict(choice),
        "reported": {"by": REPORTED_BY, "percent": reported},
    }
    path.write_text(json.dumps(content, indent=2) + "\n")
