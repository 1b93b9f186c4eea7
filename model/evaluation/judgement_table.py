"""A judgement as a table and as figures for a file."""

from __future__ import annotations

from dataclasses import asdict

from rich.box import SIMPLE_HEAD
from rich.table import Table

from model.evaluation.intervals import Interval
from model.evaluation.judgement import FIGURES, MAP_AT_R, Judgement
from model.evaluation.verdict import Circumstances, Verdict, points, rounded


def contender_table(judgement: Judgement, of: Circumstances) -> Table:
    table = Table(
        box=SIMPLE_HEAD,
        pad_edge=False,
        caption=f"{of.pictures.task}; {len(judgement.queries):,} queries, "
        f"{len(judgement.gallery):,} gallery images, the first {judgement.before.shape[1]} "
        "re-ranked. Percent, below it the 95% interval over queries; gains in points over the "
        "first stage; seconds for 1,000 pictures of shortlists. Describing 1,000 pictures with "
        f"{of.extractor} takes about {rounded(of.seconds)} s.",
        caption_justify="left",
    )
    table.add_column("")
    for title in (*FIGURES, "gain in mAP@R", "s/1,000"):
        table.add_column(title, justify="right", no_wrap=True)
    for contender in judgement.contenders:
        gain = contender.gains(judgement.first)[MAP_AT_R]
        table.add_row(
            f"{contender.name}\n{contender.setting}",
            *map(_percent, contender.means()),
            "" if contender is judgement.first else "\n".join(points(gain)),
            "" if contender.seconds is None else rounded(contender.seconds),
        )
    return table


def _percent(of: Interval) -> str:
    return f"{100 * of.mean:.1f}\n{100 * of.low:.1f}–{100 * of.high:.1f}"


def figures(judgement: Judgement, of: Circumstances, answer: Verdict) -> dict[str, object]:
    """All measured figures, as JSON."""
    return {
        "queries": len(judgement.queries),
        "gallery": len(judgement.gallery),
        "coverage": judgement.coverage,
        "seconds_to_describe_1000": of.seconds,
        "alpha": judgement.alpha,
        "temperature": judgement.temperature,
        "contenders": [
            {
                "name": contender.name,
                "setting": contender.setting,
                "seconds_for_1000": contender.seconds,
                "figures": dict(zip(FIGURES, map(asdict, contender.means()), strict=True)),
                "gains": dict(
                    zip(FIGURES, map(asdict, contender.gains(judgement.first)), strict=True)
                ),
            }
            for contender in judgement.contenders
        ],
        "answer": answer.answer,
        "verdict": str(answer),
    }
