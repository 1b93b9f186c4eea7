"""What a PromQL expression names, and what a scrape of the service has."""

from __future__ import annotations

import re
from collections import defaultdict

import promql_parser
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from service.watch import metrics

Labels = dict[str, set[str]]
"""The values that a label has, by its name."""

SCRAPED: Labels = {"job": {"locore"}, "instance": {"replica:8000"}}
"""What Prometheus itself puts on every series."""


def scraped_series() -> dict[str, Labels]:
    """The labels of every series of the exposition, by its name, as Prometheus keeps them."""
    model = ("tiny", "cpu", "float32", "plain")
    metrics.MODEL_INFO.labels(*model).set(1)
    text = generate_latest().decode()
    metrics.MODEL_INFO.remove(*model)
    series: dict[str, Labels] = {"up": {name: set(values) for name, values in SCRAPED.items()}}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = series.setdefault(sample.name, defaultdict(set))
            for name, value in (*sample.labels.items(), *_flat(SCRAPED)):
                labels[name].add(value)
    return series


def unknown(expression: str, series: dict[str, Labels]) -> list[str]:
    """What an expression names and no scrape has; raises ValueError if it is no PromQL."""
    wrong: list[str] = []

    def look(node: promql_parser.Expr) -> bool:
        if isinstance(node, promql_parser.VectorSelector):
            wrong.extend(_selected(node, series))
        elif isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            inside = set().union(*(series.get(name, {}) for name in _names(node.expr)))
            wrong.extend(f"by ({name})" for name in node.modifier.labels if name not in inside)
        return True

    promql_parser.walk(promql_parser.parse(expression), look)
    return wrong


def _selected(node: promql_parser.VectorSelector, series: dict[str, Labels]) -> list[str]:
    if node.name not in series:
        return [str(node.name)]
    wrong = []
    for matcher in node.matchers.matchers:
        values = series[node.name].get(matcher.name)
        if values is None:
            wrong.append(f"{node.name}{{{matcher.name}}}")
        elif matcher.op == promql_parser.MatchOp.Re:
            # Every alternative has to match: one that is misspelt would go unnoticed.
            wrong += [
                f"{node.name}{{{matcher.name}=~{part}}}"
                for part in matcher.value.split("|")
                if not any(re.fullmatch(part, value) for value in values)
            ]
        elif matcher.value not in values:
            wrong.append(f"{node.name}{{{matcher.name}={matcher.value}}}")
    return wrong


def _names(expression: promql_parser.Expr) -> set[str]:
    names: set[str] = set()

    def look(node: promql_parser.Expr) -> bool:
        if isinstance(node, promql_parser.VectorSelector) and node.name:
            names.add(node.name)
        return True

    promql_parser.walk(expression, look)
    return names


def _flat(labels: Labels) -> list[tuple[str, str]]:
    return [(name, value) for name, values in labels.items() for value in values]
