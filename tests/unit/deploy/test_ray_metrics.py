"""The metrics of several replicas in one answer."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from deploy.ray.replica_metrics import merged


def exposition(inflight: int, statuses: dict[str, int]) -> str:
    registry = CollectorRegistry()
    Gauge("inflight", "Requests being answered.", registry=registry).set(inflight)
    requests = Counter("requests", 'Answered, "all" of them.', ["path"], registry=registry)
    seconds = Histogram("seconds", "Time.", registry=registry, buckets=(0.5, 1))
    for path, count in statuses.items():
        requests.labels(path).inc(count)
        seconds.observe(0.7)
    return generate_latest(registry).decode()


def test_every_series_says_whose_it_is() -> None:
    odd = 'a{b} "c", d\\e'
    texts = {"one": exposition(3, {"/": 5, odd: 2}), "two": exposition(4, {"/": 6})}
    families = list(text_string_to_metric_families(merged(texts)))
    # A family comes once, whoever has it.
    assert len({family.name for family in families}) == len(families)
    series = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }
    for replica, text in texts.items():
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = sample.labels | {"instance": replica}
                assert series.pop((sample.name, *sorted(labels.items()))) == sample.value
    assert not series
    kinds = {family.name: family.type for family in families}
    assert kinds.items() >= {"inflight": "gauge", "requests": "counter"}.items()
    assert kinds["seconds"] == "histogram"


def test_no_replica_no_series() -> None:
    assert merged({}) == ""
