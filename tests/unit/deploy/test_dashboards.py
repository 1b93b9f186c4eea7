"""Dashboard and alerts ask for what the service really shows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.deploy.promql import SCRAPED, Labels, scraped_series, unknown

DEPLOY = Path(__file__).parents[3] / "deploy"
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana/dashboards/locore.json").read_text())
RULES = [
    rule
    for group in yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]


@pytest.fixture(scope="module")
def series() -> dict[str, Labels]:
    recorded: dict[str, Labels] = {rule["record"]: SCRAPED for rule in RULES if "record" in rule}
    return scraped_series() | recorded


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def test_the_dashboard_is_what_the_code_writes(tmp_path: Path) -> None:
    """After a change that is meant: `python deploy/grafana/dashboard.py`."""
    written = tmp_path / "locore.json"
    subprocess.run([sys.executable, DEPLOY / "grafana/dashboard.py", written], check=True)
    assert json.loads(written.read_text()) == DASHBOARD


def test_the_dashboards_queries_name_what_is_scraped(series: dict[str, Labels]) -> None:
    asked = 0
    for panel in panels():
        for target in panel["targets"]:
            expression = target["expr"].replace("$__rate_interval", "5m").replace("$instance", ".*")
            assert not unknown(expression, series), (panel["title"], expression)
            asked += 1
    assert asked > 25
    (variable,) = DASHBOARD["templating"]["list"]
    selector = variable["query"]["query"].removeprefix("label_values(").rsplit(",", 1)[0]
    assert not unknown(selector, series)


def test_the_rules_name_what_is_scraped(series: dict[str, Labels]) -> None:
    for rule in RULES:
        assert not unknown(rule["expr"], series), rule


@pytest.mark.parametrize(
    "expression",
    [
        "locore_request_total",
        'locore_requests_total{code="200"}',
        'locore_requests_total{status="418"}',
        'locore_requests_total{endpoint=~"rerank|galery"}',
        "sum by (status) (rate(locore_rejected_total[5m]))",
    ],
)
def test_the_check_finds_what_is_not_there(expression: str, series: dict[str, Labels]) -> None:
    assert unknown(expression, series)


def test_every_metric_of_ours_is_on_the_dashboard(series: dict[str, Labels]) -> None:
    asked = " ".join(target["expr"] for panel in panels() for target in panel["targets"])
    ours = {
        name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum")
        for name in series
        if name.startswith("locore_") and not name.endswith("_created")
    }
    assert not [name for name in ours if name not in asked]


def test_panels_have_their_place_and_their_source() -> None:
    occupied: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & occupied, panel["title"]
        assert place["x"] + place["w"] <= 24
        occupied |= cells
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(numbers) == len(set(numbers))
    provisioned = yaml.safe_load(
        (DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text()
    )
    assert {source["uid"] for source in provisioned["datasources"]} == {
        panel["datasource"]["uid"] for panel in panels()
    }


def test_every_alert_says_what_to_do_and_is_tested() -> None:
    tested = {
        case["alertname"]
        for test in yaml.safe_load((DEPLOY / "prometheus/alerts.test.yml").read_text())["tests"]
        for case in test["alert_rule_test"] or []
        if case.get("exp_alerts")
    }
    alerts = [rule for rule in RULES if "alert" in rule]
    assert {rule["alert"] for rule in alerts} == tested
    for rule in alerts:
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert set(rule["annotations"]) == {"summary", "description"}
