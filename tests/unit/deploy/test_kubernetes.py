"""The manifests agree with each other and with the service; tests/slow has the schemas' word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi.routing import APIRoute

from service.routes import health
from service.settings import Settings
from tests.unit.deploy.promql import scraped_series, unknown

FOLDER = Path(__file__).parents[3] / "deploy" / "kubernetes"
NAME = {"app.kubernetes.io/name": "locore"}

Manifest = dict[str, Any]


def loaded(path: Path) -> Manifest:
    manifest: Manifest = yaml.safe_load(path.read_text())
    return manifest


def kustomization(folder: Path) -> Manifest:
    return loaded(folder / "kustomization.yaml")


@pytest.fixture(scope="module")
def base() -> dict[str, Manifest]:
    """The base's manifests by kind."""
    manifests = [loaded(FOLDER / "base" / r) for r in kustomization(FOLDER / "base")["resources"]]
    return {manifest["kind"]: manifest for manifest in manifests}


@pytest.fixture(scope="module")
def pod(base: dict[str, Manifest]) -> Manifest:
    spec: Manifest = base["Deployment"]["spec"]["template"]["spec"]
    return spec


@pytest.fixture(scope="module")
def container(pod: Manifest) -> Manifest:
    (only,) = pod["containers"]
    assert isinstance(only, dict)
    return only


def environment(container: Manifest) -> dict[str, str | None]:
    return {entry["name"]: entry.get("value") for entry in container["env"]}


def test_every_file_is_used() -> None:
    for folder in (FOLDER / "base", *sorted((FOLDER / "overlays").iterdir())):
        listed = kustomization(folder)
        used = {"kustomization.yaml", *(name for name in listed["resources"] if ".." not in name)}
        used |= {patch["path"] for patch in listed.get("patches", ())}
        used |= {name for made in listed.get("secretGenerator", ()) for name in made["envs"]}
        assert used == {path.name for path in folder.iterdir()}
        for other in (name for name in listed["resources"] if ".." in name):
            assert (folder / other / "kustomization.yaml").is_file()


def test_what_refers_to_something_finds_it(base: dict[str, Manifest], pod: Manifest) -> None:
    (labels,) = kustomization(FOLDER / "base")["labels"]
    assert labels["pairs"] == NAME
    assert labels["includeSelectors"]
    assert labels["includeTemplates"]
    for kind, key in (("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector")):
        assert base[kind]["spec"][key]["matchLabels"] == NAME
    target = base["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    deployment = base["Deployment"]
    assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"])
    assert target["apiVersion"] == deployment["apiVersion"]
    (container,) = pod["containers"]
    generated = {made["name"] for made in kustomization(FOLDER / "base")["secretGenerator"]}
    assert {source["secretRef"]["name"] for source in container["envFrom"]} == generated
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    ports = {port["name"] for port in container["ports"]}
    assert {port["targetPort"] for port in base["Service"]["spec"]["ports"]} <= ports
    ingress = base["NetworkPolicy"]["spec"]["ingress"]
    assert {port["port"] for rule in ingress for port in rule["ports"]} <= ports


def test_the_settings_are_settings(container: Manifest) -> None:
    lines = (FOLDER / "base" / "secrets.env.example").read_text().split()
    settings = {line.partition("=")[0]: line.partition("=")[2] for line in lines}
    patch = loaded(FOLDER / "overlays" / "gpu" / "deployment.yaml")
    (patched,) = patch["spec"]["template"]["spec"]["containers"]
    for name, value in {**settings, **environment(container), **environment(patched)}.items():
        if name.startswith("LOCORE_"):
            Settings(**{name.removeprefix("LOCORE_").lower(): value})  # type: ignore[arg-type]
            assert name.removeprefix("LOCORE_").lower() in Settings.model_fields
    assert {"LOCORE_API_KEY", "LOCORE_REDIS_URL"} == set(settings)


def test_the_probes_ask_for_what_is_served(container: Manifest) -> None:
    served = {route.path for route in health.router.routes if isinstance(route, APIRoute)}
    paths = {
        probe: container[probe]["httpGet"]["path"]
        for probe in ("startupProbe", "livenessProbe", "readinessProbe")
    }
    assert set(paths.values()) <= served
    # A store that is away takes replicas out of the service and restarts none.
    assert paths["livenessProbe"] == paths["startupProbe"] == "/health/live"
    assert paths["readinessProbe"] == "/health/ready"


def test_a_pod_may_drain(pod: Manifest, container: Manifest) -> None:
    slept = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    drained = int(environment(container)["LOCORE_DRAIN_SECONDS"] or 0)
    # service/server.py waits another five seconds for connections to close.
    assert pod["terminationGracePeriodSeconds"] > slept + drained + 5


def test_a_pod_may_do_little(pod: Manifest, container: Manifest) -> None:
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    dockerfile = (FOLDER.parents[1] / "Dockerfile").read_text()
    user, group = (pod["securityContext"][key] for key in ("runAsUser", "runAsGroup"))
    assert f"USER {user}:{group}" in dockerfile
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    for kind in ("requests", "limits"):
        assert {"cpu", "memory"} <= set(container["resources"][kind])


def test_the_autoscaler_asks_for_what_the_adapter_makes(base: dict[str, Manifest]) -> None:
    (metric,) = base["HorizontalPodAutoscaler"]["spec"]["metrics"]
    asked = metric["pods"]["metric"]["name"]
    (rule,) = loaded(FOLDER / "monitoring" / "adapter-values.yaml")["rules"]["custom"]
    assert rule["seriesQuery"].partition("{")[0] == asked
    assert set(rule["resources"]["overrides"]) == {"namespace", "pod"}
    series = scraped_series()
    for labels in series.values():
        labels.update(namespace={"locore"}, pod={"locore-1"})
    query = (
        rule["metricsQuery"]
        .replace("<<.Series>>", asked)
        .replace("<<.LabelMatchers>>", 'namespace="locore", pod=~"locore-1"')
        .replace("<<.GroupBy>>", "pod")
    )
    assert not unknown(query, series)
