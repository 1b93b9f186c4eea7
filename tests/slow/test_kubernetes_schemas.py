"""What kustomize builds is what Kubernetes' own schemas allow."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.slow.deploy_tools import ROOT, says

pytestmark = pytest.mark.slow

VERSIONS = ("1.30", "1.37")
"""The oldest that is meant and the newest whose schemas the tool has."""


@pytest.mark.parametrize("overlay", ["cpu", "gpu"])
def test_an_overlay_is_valid(overlay: str, tmp_path: Path) -> None:
    built = says("kubectl", "kustomize", ROOT / "deploy/kubernetes/overlays" / overlay)
    file = tmp_path / "built.yaml"
    file.write_text(built)
    for version in VERSIONS:
        says("kubernetes-validate", "--strict", "-k", version, file)
    made = {manifest["kind"]: manifest for manifest in yaml.safe_load_all(built)}
    assert set(made) == {
        "Deployment",
        "HorizontalPodAutoscaler",
        "Namespace",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "Secret",
        "Service",
    }
    pod = made["Deployment"]["spec"]["template"]
    selector = made["Service"]["spec"]["selector"]
    assert selector.items() <= pod["metadata"]["labels"].items()
    assert made["Deployment"]["spec"]["selector"]["matchLabels"] == selector
    (container,) = pod["spec"]["containers"]
    # The secret's name carries its content's hash: a new key rolls the replicas.
    assert container["envFrom"][0]["secretRef"]["name"] == made["Secret"]["metadata"]["name"]
    assert made["Secret"]["metadata"]["name"] != "locore"
    limits = container["resources"]["limits"]
    assert ("nvidia.com/gpu" in limits) == (overlay == "gpu")
    devices = [entry.get("value") for entry in container["env"] if "DEVICE" in entry["name"]]
    assert devices == (["cuda"] if overlay == "gpu" else [])
    assert container["image"].startswith("registry.example/locore:")
