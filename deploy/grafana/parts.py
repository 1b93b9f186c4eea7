"""What a dashboard is made of: panels, and PromQL over the series of all replicas."""

from __future__ import annotations

from dataclasses import dataclass

SERIES = 'job="locore", instance=~"$instance"'
WORK = 'endpoint=~"rerank|gallery|gallery_image|extract|collections|aliases"'


@dataclass(frozen=True)
class Panel:
    """`queries`: a legend and PromQL each; `limit`: where the value is drawn red."""

    title: str
    description: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    width: int = 8
    kind: str = "timeseries"
    limit: float | None = None
    stacked: bool = False
    top: float | None = None


def rate(metric: str, labels: str = "", by: str = "") -> str:
    selector = ", ".join(filter(None, (SERIES, labels)))
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} (rate({metric}{{{selector}}}[$__rate_interval]))"


def quantile(share: float, metric: str, labels: str = "", by: str = "") -> str:
    buckets = rate(f"{metric}_bucket", labels, ", ".join(filter(None, ("le", by))))
    return f"histogram_quantile({share}, {buckets})"


def mean(metric: str, labels: str = "", by: str = "") -> str:
    return f"{rate(f'{metric}_sum', labels, by)} / {rate(f'{metric}_count', labels, by)}"


def gauge(metric: str) -> str:
    return f"{metric}{{{SERIES}}}"
