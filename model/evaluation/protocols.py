"""The protocols of a benchmark: which queries count, what is relevant to them, and the figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.evaluation.measures import average_precision_at, map_at_r, recall_at, revisited
from model.formats.ground_truth import QueryTruth

Indices = NDArray[np.int64]
Ranking = NDArray[np.int64]
Figures = dict[str, float]
DIFFICULTIES = ("easy", "medium", "hard")
PRIVATE_QUERIES = 750
"""The number of private test queries of GLDv2, the last ones; the others are for validation."""
_PLACES = 100
_BLOCK = 1024


@dataclass(frozen=True, eq=False)
class Protocol:
    """`counted` (queries,): those that have positives; the others are in no mean.

    `judge`: a ranking (queries, places) of gallery indices to figures between 0 and 1, of which
    `chief` is the one to choose by. `behind`: per query the images that go behind the rest of its
    list before the top is cut, or None; protocols of the same `list_name` share their lists.
    """

    name: str
    counted: NDArray[np.bool_]
    judge: Callable[[Ranking], Figures]
    chief: str
    list_name: str = ""
    behind: tuple[Indices, ...] | None = None


def revisited_protocols(
    queries: Sequence[QueryTruth], names: Sequence[str], ks: Sequence[int]
) -> list[Protocol]:
    """Easy, Medium and Hard of Radenović et al., CVPR 2018, those of `names`.

    As published the lists that are re-ranked differ too: junk goes behind, and for Hard, in a
    second pass over all queries, junk and what is easy.
    """
    easy = [of.easy for of in queries]
    hard = [of.hard for of in queries]
    junk = [of.junk for of in queries]
    by_name = {
        "easy": (easy, _joined(junk, hard), False),
        "medium": (_joined(easy, hard), junk, False),
        "hard": (hard, _joined(junk, easy), True),
    }
    protocols = []
    for name, (right, left_out, without_easy) in by_name.items():
        if name in names:
            protocols.append(
                Protocol(
                    name,
                    np.array([bool(positives.size) for positives in right]),
                    _revisited_judge(right, left_out, ks),
                    "mAP",
                    "junk and easy behind" if without_easy else "junk behind",
                    tuple(_joined(junk, easy) if without_easy else junk),
                )
            )
    return protocols


def _joined(first: Sequence[Indices], second: Sequence[Indices]) -> list[Indices]:
    return [np.concatenate(pair) for pair in zip(first, second, strict=True)]


def _revisited_judge(
    right: Sequence[Indices], junk: Sequence[Indices], ks: Sequence[int]
) -> Callable[[Ranking], Figures]:
    def judge(ranking: Ranking) -> Figures:
        quality = revisited(ranking, right, junk, ks)
        precision = np.nanmean(quality.precision, axis=0)
        return {"mAP": float(np.nanmean(quality.average_precision))} | {
            f"mP@{k}": float(value) for k, value in zip(ks, precision, strict=True)
        }

    return judge


def landmark_protocols(queries: Sequence[QueryTruth]) -> list[Protocol]:
    """mAP@100 of GLDv2's test queries: public, private and combined."""
    right = [of.easy for of in queries]
    behind = tuple(of.junk for of in queries)
    has_junk = any(images.size for images in behind)
    positive = np.array([bool(positives.size) for positives in right])
    private = np.arange(len(queries)) >= len(queries) - PRIVATE_QUERIES
    chief = f"mAP@{_PLACES}"

    def protocol(name: str, counted: NDArray[np.bool_]) -> Protocol:
        def judge(ranking: Ranking) -> Figures:
            average = average_precision_at(ranking, right, _PLACES)
            return {chief: float(average[counted].mean())}

        if not has_junk:
            return Protocol(name, counted, judge, chief)
        return Protocol(name, counted, judge, chief, "junk behind", behind)

    return [
        protocol("public", positive & ~private),
        protocol("private", positive & private),
        protocol("combined", positive),
    ]


def labelled_protocol(
    query_labels: NDArray[np.int64],
    gallery_labels: NDArray[np.int64],
    ks: Sequence[int],
    among_themselves: bool,
) -> Protocol:
    """R@k and mAP@R where images of one label are relevant to each other.

    A query among the gallery is not relevant to itself. R@k is left out where the lists are
    shorter than k, and images that a list does not have count as not found.
    """
    labels, counts = np.unique(gallery_labels, return_counts=True)
    place = np.searchsorted(labels, query_labels).clip(max=len(labels) - 1)
    relevant = np.where(labels[place] == query_labels, counts[place], 0) - int(among_themselves)
    counted = relevant > 0

    def judge(ranking: Ranking) -> Figures:
        rows = np.flatnonzero(counted)
        complete = ranking.shape[1] >= len(gallery_labels) - int(among_themselves)
        # Lists that name the query itself, which goes last, are one place shorter.
        with_query = among_themselves and bool((ranking[rows, -1] == rows).any())
        length = ranking.shape[1] - int(with_query)
        usable = [k for k in ks if complete or k <= length]
        depth = max((*usable, int(relevant.max())))
        sums = np.zeros(len(usable) + 1)
        # A few queries at a time: relevance of whole rankings would take as much as they do.
        for start in range(0, len(rows), _BLOCK):
            some = rows[start : start + _BLOCK]
            top = ranking[some, :depth]
            ranked = gallery_labels[top] == query_labels[some, None]
            if among_themselves:
                ranked &= top != some[:, None]
            sums += [
                *(recall_at(ranked, k).sum() for k in usable),
                map_at_r(ranked, relevant[some]).sum(),
            ]
        names = [*(f"R@{k}" for k in usable), "mAP@R"]
        return {name: float(value) for name, value in zip(names, sums / len(rows), strict=True)}

    return Protocol("all", counted, judge, "mAP@R")


def selection_protocols(protocols: Sequence[Protocol]) -> list[Protocol]:
    """The protocols that choose alpha and T, by the mean of their chief figures: Medium and Hard as
    published, the public queries of GLDv2, or all."""
    validation = [p for p in protocols if p.name == "public"]
    harder = [p for p in protocols if p.name in ("medium", "hard")]
    return validation or harder or list(protocols)
