"""GET /info, over HTTP and by both clients."""

from __future__ import annotations

from pathlib import Path

from both_clients import Blocking, both
from tests.e2e.service import RunningService, running
from tests.factories import tiny_config

CONFIG = tiny_config()


def test_it_tells_the_model_the_sizes_the_limits_and_the_defaults(service: RunningService) -> None:
    answer = service.http.get("/info")
    assert answer.status_code == 200
    info = answer.json()
    assert info.pop("model") | {"kernel": ""} == {
        "name": "tiny",
        "backbone": "mamba",
        "kernel": "",
        "device": "cpu",
        "dtype": "float32",
    }
    assert info == {
        "sizes": None,
        "limits": {
            "max_images_per_request": 256,
            "max_payload_bytes": 32 << 20,
            "max_rerank_bytes": 8 << 20,
            "max_image_bytes": 16 << 20,
            "max_shortlist": 1600,
            "descriptors_per_image": CONFIG.descriptors_per_image,
            "min_descriptor_dim": 2,
            "max_descriptor_dim": 4096,
            "longest_window": None,
        },
        "rerank": CONFIG.rerank.model_dump(),
        "extractor": {"name": "made-up", "version": "1"},
        "metrics": [],
    }
    assert service.metric('locore_requests_total{endpoint="info",status="200"}') >= 1


@both
def test_the_clients_ask_for_it(service: RunningService, kind: type[Blocking]) -> None:
    info = kind(service.url).info()
    assert info.model_dump(by_alias=True) == service.http.get("/info").json()
    assert info.sizes is None


def test_limits_are_those_of_the_settings(checkpoint: Path, tmp_path: Path) -> None:
    with running(
        checkpoint, tmp_path, max_images_per_request=7, max_payload_bytes=9999, api_key="secret"
    ) as strict:
        info = strict.http.get("/info").json()
    assert info["limits"]["max_images_per_request"] == 7
    assert info["limits"]["max_payload_bytes"] == 9999
    assert "secret" not in str(info)
