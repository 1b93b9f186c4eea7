"""Whether re-ranking is worth it on a task, in words, and what to try next: by the numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from model.evaluation.intervals import Interval
from model.evaluation.judgement import MAP_AT_R, R_AT_1, Contender, Judgement
from model.evaluation.own_pictures import OwnPictures

FEWEST_QUERIES = 30
"""Below that an interval says little of other queries."""
_SETTLED = 0.98
"""mAP@R of a first stage that leaves nothing to gain."""
_LITTLE = 0.01
_COVERAGE = 0.7
"""Of a shortlist, below which the first stage is what to mend."""

Answer = Literal["yes", "no", "open"]


@dataclass(frozen=True)
class Circumstances:
    """What a judgement was made of. `descriptors`: the file of the extractor's descriptors;
    `seconds`: to describe a thousand pictures."""

    pictures: OwnPictures
    extractor: str
    descriptors: Path
    seconds: float


@dataclass(frozen=True)
class Verdict:
    """`worth` and `next` are sentences."""

    answer: Answer
    worth: str
    next: str

    def __str__(self) -> str:
        return f"{self.worth} {self.next}"


def verdict(judgement: Judgement, of: Circumstances) -> Verdict:
    answer, worth = _worth(judgement)
    seconds = judgement.served.seconds or 0.0
    times = (
        f"Re-ranking takes about {rounded(seconds)} s for 1,000 pictures, describing them about "
        f"{rounded(of.seconds)} s."
    )
    return Verdict(answer, f"{worth} {times}", _next(judgement, of))


def points(gain: Interval) -> tuple[str, str]:
    """A gain in points of percent, and its interval, in words."""
    return _point(gain.mean), f"{_point(gain.low)} to {_point(gain.high)}"


def rounded(seconds: float) -> str:
    """To two digits: a time of one run on one machine says no more."""
    return f"{float(f'{seconds:.2g}'):,g}"


def _point(value: float) -> str:
    words = f"{100 * value:+.1f}"
    return "0.0" if float(words) == 0 else words.replace("-", "\N{MINUS SIGN}")


def _both(gain: Interval) -> str:
    mean, interval = points(gain)
    return f"{mean} ({interval})"


def _worth(judgement: Judgement) -> tuple[Answer, str]:
    first, served = judgement.first, judgement.served
    gains = served.gains(first)
    precision, recall = gains[MAP_AT_R], gains[R_AT_1]
    count = len(judgement.queries)
    said = (
        f"{served.name} changes mAP@R by {_both(precision)} points and R@1 by {_both(recall)}, "
        f"with 95% intervals over {count:,} queries."
    )
    if count < FEWEST_QUERIES:
        return "open", f"Too few queries to tell, {count} where {FEWEST_QUERIES} begin to: {said}"
    if precision.high < 0:
        return "no", f"Not worth it as it is: {said}{_rival(judgement)}"
    if precision.low > 0 and recall.high < 0:
        return "open", (
            f"Worth it where all right pictures count, not where the first one does: {said}"
            f"{_rival(judgement)}"
        )
    if precision.low > 0:
        return "yes", f"Worth it: {said}{_rival(judgement)}"
    if precision.high < _LITTLE:
        return "no", f"Not worth it, there is next to no difference: {said}{_rival(judgement)}"
    return "open", f"These queries do not tell: {said}{_rival(judgement)}"


def _rival(judgement: Judgement) -> str:
    """What learns nothing, where it does better."""
    best = max(judgement.untrained, key=lambda one: one.figures[MAP_AT_R].mean())
    gain = best.gains(judgement.served)[MAP_AT_R]
    if gain.low <= 0:
        return ""
    return f" {best.name}, which learns nothing, does better: by {_both(gain)} points of mAP@R."


def _next(judgement: Judgement, of: Circumstances) -> str:
    if judgement.first.figures[MAP_AT_R].mean() >= _SETTLED:
        return "Next: nothing, the first stage has nearly all right pictures in front already."
    measured = [
        (gain.mean, f"{what}: {_both(gain)} points of mAP@R over the checkpoint as it is")
        for contender, what in _candidates(judgement, of)
        if (gain := contender.gains(judgement.served)[MAP_AT_R]).low > 0
    ]
    if measured:
        return f"Next: {max(measured)[1]}."
    if judgement.coverage < _COVERAGE:
        return (
            f"Next: another extractor, such as --extractor {_other(of.extractor)}: the shortlists "
            f"have {judgement.coverage:.0%} of the right pictures, and re-ranking adds none."
        )
    return (
        "Next: adaptation, which takes minutes and was not tried here: locore train --images "
        f"{of.pictures.folder} --from -o mine.safetensors."
    )


def _candidates(judgement: Judgement, of: Circumstances) -> list[tuple[Contender, str]]:
    setting = f"alpha {judgement.alpha:g} and temperature {judgement.temperature:g} in the request"
    candidates = [(judgement.tuned, setting)]
    if judgement.in_metric is not None:
        pictures = of.pictures
        labels = "" if pictures.labels_file is None else f" --labels {pictures.labels_file}"
        source = "--views" if pictures.views else "--descriptors"
        command = f"locore fit-metric {source} {of.descriptors}{labels} -o mine.metric.safetensors"
        candidates.append((judgement.in_metric, f"a metric, {command}"))
    return candidates


def _other(extractor: str) -> str:
    return "efficientnet-lite2" if extractor != "efficientnet-lite2" else "hf:FOLDER"
