"""How the checkpoint compares: means of the table in docs/results.md, printed and drawn.

python recipes/default_checkpoint/plot.py docs/results.md docs/comparison.svg
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from statistics import mean

import click
import matplotlib as mpl
from matplotlib.figure import Figure

METHODS = {
    "first stage": "#9a9a9a",
    "Chamfer": "#56b4e9",
    "k-reciprocal": "#009e73",
    "ELViS": "#e69f00",
    "relations": "#d55e00",
}
"""Columns of the table, and their colours (Okabe and Ito's, which colour-blind readers tell
apart)."""
DOMAINS = {
    "all": "all",
    "grocery": "groceries",
    "butterflies_moths": "butterflies",
    "eth80_objects": "ETH-80",
    "paris5": "Paris",
    "sample": "sample",
    "lion_faces": "lions",
}
TEXT = "#808080"
"""Grey that is readable on white and on black."""

Quality = tuple[float, float]
"""R@1 and mAP@R in percent."""


def means(page: str) -> dict[str, dict[str, Quality]]:
    """By domain and method, over the types of descriptors without noise."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines()]
    start = next(n for n, row in enumerate(rows) if row[:2] == ["domain", "descriptors"])
    cells: dict[tuple[str, str], list[Quality]] = defaultdict(list)
    for row in rows[start + 2 :]:
        if not row:
            break
        if "noise" in row[1]:
            continue
        for method, cell in zip(rows[start][2:], row[2:], strict=True):
            recall, precision = map(float, cell.split("/"))
            for domain in ("all", row[0]):
                cells[domain, method].append((recall, precision))
    return {
        domain: {
            method: (
                mean(r for r, _ in cells[domain, method]),
                mean(p for _, p in cells[domain, method]),
            )
            for method in METHODS
        }
        for domain in DOMAINS
    }


def draw(by_domain: dict[str, dict[str, Quality]], path: Path) -> None:
    mpl.rcParams |= {
        "svg.fonttype": "none",
        "svg.hashsalt": "locore",
        "font.family": "sans-serif",
        "text.color": TEXT,
        "axes.labelcolor": TEXT,
        "axes.edgecolor": TEXT,
        "xtick.color": TEXT,
        "ytick.color": TEXT,
    }
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(METHODS)
    for place, (method, colour) in enumerate(METHODS.items()):
        axes.bar(
            [n + (place - (len(METHODS) - 1) / 2) * width for n in range(len(by_domain))],
            [by_method[method][1] for by_method in by_domain.values()],
            width,
            color=colour,
            label="ours" if method == "relations" else method,
        )
    axes.set_xticks(range(len(by_domain)), [DOMAINS[domain] for domain in by_domain])
    axes.set(ylabel="mAP@R, percent")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, ncols=len(METHODS), loc="lower center", bbox_to_anchor=(0.5, 1))
    figure.savefig(path, transparent=True, metadata={"Date": None})


@click.command()
@click.argument("page", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.argument("picture", type=click.Path(path_type=Path, dir_okay=False))
def main(page: Path, picture: Path) -> None:
    by_domain = means(page.read_text())
    for method in METHODS:
        figures = [by_method[method] for by_method in by_domain.values()]
        cells = (f"{recall:5.1f} / {precision:4.1f}" for recall, precision in figures)
        click.echo(" ".join((f"{method:13}", *cells)))
    draw(by_domain, picture)


if __name__ == "__main__":
    main()
