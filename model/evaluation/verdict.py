"""Says in words whether re-ranking is worth it on a task, and what to try next."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from model.evaluation.intervals import Interval
from model.evaluation.judgement import MAP_AT_R, R_AT_1, Contender, Judgement
from model.evaluation.own_pictures import OwnPictures

FEWEST_QUERIES = 30
"""Fewer queries say little about others."""
_SETTLED = 0.98
"""A first stage with this mAP@R leaves nothing to gain."""
_LITTLE = 0.01
_COVERAGE = 0.7
"""A shortlist with a lower recall needs a better first stage."""

Answer = Literal["yes", "no", "open"]


@dataclass(frozen=True)
class Circumstances:
    """The data of a judgement. `descriptors`: the file of the extractor's descriptors; `seconds`:
    the time to describe a thousand pictures."""

    pictures: OwnPictures
    extractor: str
    descriptors: Path
    seconds: float


@dataclass(frozen=True)
class Verdict:
    """In words: `headline`, `reasons` in sentences, `next` what to try, and the `command` for it,
    if there is one."""

    answer: Answer
    headline: str
    reasons: str
    next: str
    command: str | None

    def __str__(self) -> str:
        after = "." if self.command is None else f": {self.command}"
        return f"{self.headline}: {self.reasons} Next: {self.next}{after}"


def verdict(judgement: Judgement, of: Circumstances) -> Verdict:
    answer, headline = _answer(judgement)
    served = judgement.served
    gains = served.gains(judgement.first)
    reasons = (
        f"{served.name} changes mAP@R by {_both(gains[MAP_AT_R])} points and R@1 by "
        f"{_both(gains[R_AT_1])}, with 95% intervals over {len(judgement.queries):,} queries."
        f"{_rival(judgement)} Re-ranking takes about {rounded(served.seconds or 0.0)} s for 1,000 "
        f"pictures, describing them about {rounded(of.seconds)} s."
    )
    return Verdict(answer, headline, reasons, *_next(judgement, of))


def points(gain: Interval) -> tuple[str, str]:
    """A gain in points of percent, and its interval, in words."""
    return _point(gain.mean), f"{_point(gain.low)} to {_point(gain.high)}"


def rounded(seconds: float) -> str:
    """Seconds with two digits: one run on one machine is not more precise."""
    return f"{float(f'{seconds:.2g}'):,g}"


def _point(value: float) -> str:
    words = f"{100 * value:+.1f}"
    return "0.0" if float(words) == 0 else words.replace("-", "\N{MINUS SIGN}")


def _both(gain: Interval) -> str:
    mean, interval = points(gain)
    return f"{mean} ({interval})"


def _answer(judgement: Judgement) -> tuple[Answer, str]:
    gains = judgement.served.gains(judgement.first)
    precision, recall = gains[MAP_AT_R], gains[R_AT_1]
    count = len(judgement.queries)
    if count < FEWEST_QUERIES:
        return "open", f"Too few queries to tell, {count} of at least {FEWEST_QUERIES}"
    if precision.high < 0:
        return "no", "Not worth it as it is"
    if precision.low > 0 and recall.high < 0:
        return "open", "Worth it where all right pictures count, not where the first one does"
    if precision.low > 0:
        return "yes", "Worth it"
    if precision.high < _LITTLE:
        return "no", "Not worth it, there is next to no difference"
    return "open", "These queries do not tell"


def _rival(judgement: Judgement) -> str:
    """A sentence about the best re-ranker without training, if it helps and the checkpoint is not
    clearly better."""
    best = max(judgement.untrained, key=lambda one: one.figures[MAP_AT_R].mean())
    gain = best.gains(judgement.served)[MAP_AT_R]
    if gain.high < 0 or best.gains(judgement.first)[MAP_AT_R].low <= 0:
        return ""
    how = "better" if gain.low > 0 else "as well, as far as these queries tell"
    return f" {best.name}, which learns nothing, does {how}: by {_both(gain)} points of mAP@R."


def _next(judgement: Judgement, of: Circumstances) -> tuple[str, str | None]:
    """The advice that helped most in measurements; else what the figures suggest."""
    if judgement.first.figures[MAP_AT_R].mean() >= _SETTLED:
        return "nothing, the first stage has nearly all right pictures in front already", None
    measured = [
        (gain.mean, f"{what}, {_both(gain)} points of mAP@R over the checkpoint as it is", command)
        for contender, what, command in _candidates(judgement, of)
        if (gain := contender.gains(judgement.served)[MAP_AT_R]).low > 0
    ]
    if measured:
        _, what, command = max(measured, key=lambda candidate: candidate[0])
        return what, command
    if judgement.coverage < _COVERAGE:
        other = "efficientnet-lite2" if of.extractor != "efficientnet-lite2" else "hf:FOLDER"
        return (
            f"another extractor, since the shortlists have {judgement.coverage:.0%} of the right "
            "pictures and re-ranking adds none",
            f"locore eval mine {of.pictures.folder} --extractor {other}",
        )
    return (
        "adaptation, which takes minutes and was not tried here",
        f"locore train --images {of.pictures.folder} --from -o mine.safetensors",
    )


def _candidates(judgement: Judgement, of: Circumstances) -> list[tuple[Contender, str, str | None]]:
    setting = f"alpha {judgement.alpha:g} and temperature {judgement.temperature:g} in the request"
    candidates: list[tuple[Contender, str, str | None]] = [(judgement.tuned, setting, None)]
    if judgement.in_metric is not None:
        pictures = of.pictures
        labels = "" if pictures.labels_file is None else f" --labels {pictures.labels_file}"
        source = "--views" if pictures.views else "--descriptors"
        command = f"locore fit-metric {source} {of.descriptors}{labels} -o mine.metric.safetensors"
        what = "a metric of these views" if pictures.views else "a metric of these labels"
        candidates.append((judgement.in_metric, what, command))
    return candidates
