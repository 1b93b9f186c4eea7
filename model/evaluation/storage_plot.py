"""The plot of `locore eval storage`: bytes per image against the loss."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from model.evaluation.storage_loss import Loss, Storage


def draw(losses: Mapping[Storage, Loss], path: Path) -> None:
    """A line for each dtype, over the number of locals: solid where they are pooled, dashed where
    only the strongest are kept. The file's suffix is the format."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    dtypes = list(dict.fromkeys(form.dtype for form in losses))
    for place, dtype in enumerate(dtypes):
        forms = [form for form in losses if form.dtype == dtype]
        all_locals = max(form.locals for form in forms)
        for pooled, style in ((True, "-o"), (False, "--x")):
            line = [form for form in forms if form.locals == all_locals or form.pooled == pooled]
            axes.plot(
                [form.size for form in line],
                [losses[form].precision for form in line],
                style,
                color=f"C{place}",
                label=f"{dtype}, {'pooled' if pooled else 'the strongest'}",
            )
    axes.set(xscale="log", xlabel="bytes an image", ylabel="mAP@R lost, points, mean over cells")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path)
