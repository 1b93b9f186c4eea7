"""A real Prometheus with the shipped rules scrapes a real service."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.e2e.service import RunningService, free_port, running
from tests.e2e.valkey import plain_valkey
from tests.factories import image, save_tiny, tiny_config
from tests.slow.deploy_tools import ROOT, comes_true, says
from tests.slow.prometheus_server import Prometheus, prometheus

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

FOLDER = ROOT / "deploy" / "prometheus"
CONFIG = tiny_config()


def config_for(address: str) -> dict[str, Any]:
    """The shipped configuration; names have no meaning here, and no test waits for 15 seconds."""
    config: dict[str, Any] = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    config["global"] = dict.fromkeys(
        ("scrape_interval", "scrape_timeout", "evaluation_interval"), "1s"
    )
    config["rule_files"] = [str(FOLDER / name) for name in config["rule_files"]]
    (job,) = [job for job in config["scrape_configs"] if job["job_name"] == "locore"]
    del job["dns_sd_configs"]
    job["static_configs"] = [{"targets": [address]}]
    config["scrape_configs"] = [job]
    return config


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    folder = tmp_path_factory.mktemp("service")
    with running(save_tiny(folder), folder / "data") as started:
        rng = np.random.default_rng(0)
        gallery = {f"image-{n}": image(rng, CONFIG) for n in range(20)}
        assert started.register(gallery).is_success
        yield started


@pytest.fixture(scope="module")
def server(
    service: RunningService, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    config = config_for(service.url.removeprefix("http://"))
    with prometheus(config, tmp_path_factory.mktemp("prometheus")) as started:
        assert comes_true(lambda: started.values('up{job="locore"}') == [1], 30)
        query = image(np.random.default_rng(1), CONFIG)
        # Rates need traffic between two scrapes.
        for _ in range(2):
            before = started.values('locore_requests_total{endpoint="rerank", status="200"}')
            for _ in range(5):
                assert service.rerank(query, [f"image-{n}" for n in range(20)]).is_success
            assert comes_true(
                lambda before=before: (  # type: ignore[misc]
                    started.values('locore_requests_total{endpoint="rerank", status="200"}')
                    > before
                ),
                30,
            )
        yield started


def test_promtool_is_content() -> None:
    says("promtool", "check", "config", FOLDER / "prometheus.yml")
    says("promtool", "test", "rules", FOLDER / "alerts.test.yml")


def test_it_reads_what_the_service_shows(service: RunningService, server: Prometheus) -> None:
    for sample in (
        "locore_ready",
        "locore_store_up",
        "locore_queue_tokens_limit",
        "locore_memory_limit_bytes",
        'locore_requests_total{endpoint="rerank",status="200"}',
        "locore_gallery_images_registered_total",
        "locore_batch_windows_count",
    ):
        assert server.values(sample) == [service.metric(sample)], sample
    (model,) = server.query("locore_model_info")
    assert model[0].items() >= {"checkpoint": "tiny", "device": "cpu"}.items()


def test_every_query_of_the_dashboard_has_an_answer(server: Prometheus) -> None:
    dashboard = json.loads((ROOT / "deploy/grafana/dashboards/locore.json").read_text())
    # Ratios of nothing are no numbers: nothing fails here.
    asked = [
        (panel["title"], target["expr"])
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
    ]
    assert asked
    for title, expression in asked:
        expression = expression.replace("$__rate_interval", "1m").replace("$instance", ".*")
        assert server.query(expression), (title, expression)


def test_the_rules_are_loaded_and_none_fires(server: Prometheus) -> None:
    def rules() -> list[dict[str, Any]]:
        return [rule for group in server.api("rules")["groups"] for rule in group["rules"]]

    assert comes_true(lambda: all(rule["health"] == "ok" for rule in rules()), 60)
    shipped = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
    names = {r.get("alert", r.get("record")) for group in shipped for r in group["rules"]}
    assert {rule["name"] for rule in rules()} == names
    assert not [rule for rule in rules() if rule.get("state") == "firing"]
    assert comes_true(lambda: len(server.values("locore:cache_hit_ratio:rate10m")) == 1, 30)
    (p99,) = server.values("locore:rerank_seconds:p99_5m")
    assert 0 < p99 < 30


def test_alerts_follow_what_goes_wrong(tmp_path: Path) -> None:
    """The store goes, then the service; `for` then decides when somebody is called."""
    port = free_port()
    checkpoint = save_tiny(tmp_path)
    with plain_valkey(port, tmp_path) as valkey:
        url = f"redis://127.0.0.1:{port}/0"
        with running(checkpoint, tmp_path / "data", redis_url=url) as service:
            address = service.url.removeprefix("http://")
            with prometheus(config_for(address), tmp_path) as server:

                def pending() -> set[str]:
                    return {labels["alertname"] for labels, _ in server.query("ALERTS")}

                assert comes_true(lambda: server.values("locore_store_up") == [1], 30)
                # LocoreGone waits until the first scrape.
                assert comes_true(lambda: not pending(), 30)
                valkey.kill()
                assert service.http.get("/health/ready").status_code == 503
                assert comes_true(lambda: pending() == {"LocoreStoreDown"}, 30)
                service.stop()
                assert comes_true(lambda: "LocoreDown" in pending(), 30)


def test_the_clusters_job_names_pods(service: RunningService, tmp_path: Path) -> None:
    """Debian's Prometheus cannot ask Kubernetes: what it would find is written down instead. The
    autoscaler's query then finds the queue by pod."""
    config = yaml.safe_load((ROOT / "deploy/kubernetes/monitoring/prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s"}
    (job,) = config["scrape_configs"]
    del job["kubernetes_sd_configs"]
    address = service.url.removeprefix("http://")
    port = address.rpartition(":")[2]
    pods = {
        "__meta_kubernetes_namespace": "locore",
        "__meta_kubernetes_pod_label_app_kubernetes_io_name": "locore",
        "__meta_kubernetes_pod_container_port_name": "http",
    }
    job["static_configs"] = [
        {"targets": [address], "labels": pods | {"__meta_kubernetes_pod_name": "locore-1"}},
        {
            "targets": [f"localhost:{port}"],
            "labels": pods | {"__meta_kubernetes_pod_label_app_kubernetes_io_name": "redis"},
        },
    ]
    values = yaml.safe_load((ROOT / "deploy/kubernetes/monitoring/adapter-values.yaml").read_text())
    (rule,) = values["rules"]["custom"]
    query = rule["metricsQuery"]
    for name, value in (
        ("Series", "locore_queue_tokens"),
        ("LabelMatchers", 'namespace="locore",pod=~"locore-1"'),
        ("GroupBy", "pod"),
    ):
        query = query.replace(f"<<.{name}>>", value)
    with prometheus(config, tmp_path) as server:
        assert comes_true(lambda: bool(server.query("up")), 30)
        assert comes_true(lambda: server.query(query) == [({"pod": "locore-1"}, 0.0)], 30)
        assert len(server.query(rule["seriesQuery"])) == 1
