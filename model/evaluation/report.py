"""A judgement as a self-contained HTML page with pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray
from PIL import Image

from model.evaluation.intervals import Interval
from model.evaluation.judgement import FIGURES, MAP_AT_R, Contender, Judgement
from model.evaluation.plots import WIDTH, gain_plot, interval_plot
from model.evaluation.verdict import Circumstances, Verdict, points, rounded
from model.extraction.images import UnreadableImageError

_EXAMPLES = 10
_SHOWN = 6
"""First results of an example."""
_SIDE = 144
"""Pixels of a picture's longer side."""
_TEMPLATES = Environment(
    loader=PackageLoader("model.evaluation", "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters |= {
    "points": points,
    "rounded": rounded,
    "percent": lambda share: f"{100 * share:.1f}",
}


@dataclass(frozen=True)
class Row:
    """A row of the table: `gain` over the first stage in mAP@R."""

    contender: Contender
    means: Sequence[Interval]
    gain: Interval


@dataclass(frozen=True)
class Result:
    """A picture of the gallery: its id, its file's bytes as a data URL (None if it cannot be
    read), and whether it is right."""

    name: str
    picture: str | None
    right: bool


@dataclass(frozen=True)
class Example:
    """A query, its first results before and after, and its mAP@R in percent of both."""

    name: str
    picture: str | None
    before: Sequence[Result]
    after: Sequence[Result]
    precision_before: float
    precision_after: float


def report(judgement: Judgement, of: Circumstances, answer: Verdict) -> str:
    """The page as HTML."""
    gains = judgement.served.figures[MAP_AT_R] - judgement.first.figures[MAP_AT_R]
    order = np.argsort(-gains, kind="stable")
    gained = order[gains[order] > 0][:_EXAMPLES]
    lost = order[gains[order] < 0][::-1][:_EXAMPLES]
    picture = cache(lambda name: _data_url(of.pictures.picture, name))
    rows = [_row(contender, judgement.first) for contender in judgement.contenders]
    return _TEMPLATES.get_template("report.html").render(
        name=of.pictures.folder.resolve().name,
        verdict=answer,
        facts=_facts(judgement, of),
        figures=FIGURES,
        rows=rows,
        first=judgement.first,
        served=judgement.served,
        width=WIDTH,
        intervals=interval_plot([(row.contender.name, row.gain) for row in rows[1:]]),
        queries=gain_plot(gains),
        counts=(int((gains > 0).sum()), int((gains < 0).sum()), int((gains == 0).sum())),
        examples=(
            ("gained most", [_example(judgement, q, picture) for q in gained]),
            ("lost most", [_example(judgement, q, picture) for q in lost]),
        ),
    )


def _row(contender: Contender, first: Contender) -> Row:
    return Row(contender, contender.means(), contender.gains(first)[MAP_AT_R])


def _facts(judgement: Judgement, of: Circumstances) -> list[tuple[str, str]]:
    return [
        ("task", of.pictures.task),
        ("queries", f"{len(judgement.queries):,}"),
        ("gallery", f"{len(judgement.gallery):,} pictures"),
        (
            "shortlist",
            f"the first {judgement.before.shape[1]}, {judgement.coverage:.0%} of the right ones",
        ),
        ("extractor", of.extractor),
        ("describing 1,000", f"about {rounded(of.seconds)} s"),
    ]


def _example(judgement: Judgement, query: int, picture: Callable[[str], str | None]) -> Example:
    def results(places: NDArray[np.int64]) -> list[Result]:
        return [
            Result(
                judgement.gallery[place],
                picture(judgement.gallery[place]),
                bool(judgement.relevant[query, place]),
            )
            for place in places[:_SHOWN]
        ]

    before, after = (
        100 * float(contender.figures[MAP_AT_R, query])
        for contender in (judgement.first, judgement.served)
    )
    name = judgement.queries[query]
    return Example(
        name,
        picture(name),
        results(judgement.before[query]),
        results(judgement.after[query]),
        before,
        after,
    )


def _data_url(open_picture: Callable[[str], Image.Image], name: str) -> str | None:
    try:
        image = open_picture(name)
    except UnreadableImageError:
        return None
    image.thumbnail((_SIDE, _SIDE))
    data = io.BytesIO()
    image.save(data, "WEBP", quality=72)
    return "data:image/webp;base64," + base64.b64encode(data.getvalue()).decode()
