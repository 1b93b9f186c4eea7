"""Tracing without a collector, without its packages, and not asked for at all."""

from __future__ import annotations

import socket
import subprocess
import time
from datetime import datetime
from pathlib import Path

import pytest

from model.descriptors import ImageDescriptors
from tests.e2e.collector import collecting, lines_of
from tests.e2e.service import LOCORE, free_port, running

Images = dict[str, ImageDescriptors]

pytestmark = pytest.mark.slow


def test_the_last_spans_are_sent_before_the_end(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "600000")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "search")
        with running(checkpoint, tmp_path, tracing="otlp") as service:
            service.http.get("/gallery")
            assert not collector.spans
            assert service.stop() == 0
        assert [span.name for span in collector.spans] == ["store", "GET /gallery"]
        assert collector.spans[0].resource["service.name"] == "search"


@pytest.mark.parametrize("collector_is", ["refusing", "silent"])
def test_a_collector_that_is_away_costs_nobody_an_answer(
    checkpoint: Path,
    tmp_path: Path,
    gallery: Images,
    query: ImageDescriptors,
    monkeypatch: pytest.MonkeyPatch,
    collector_is: str,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1] if collector_is == "silent" else free_port()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        images = dict(list(gallery.items())[:5])
        with running(checkpoint, tmp_path, tracing="otlp") as service:
            assert service.register(images).is_success
            for _ in range(40):
                assert service.rerank(query, list(images)).status_code == 200
            if collector_is == "refusing":
                # Long enough for three attempts, each of which the exporter would tell of.
                time.sleep(3.5)
                assert service.rerank(query, list(images)).status_code == 200
            assert service.stop() == 0
            lines = lines_of(service)
    told = {line["event"]: datetime.fromisoformat(line["timestamp"]) for line in lines}
    # The rest of the end is the same with and without a collector.
    assert (told["spans_lost"] - told["drained"]).total_seconds() < 5
    complaints = [line for line in lines if line["logger"].startswith("opentelemetry")]
    assert len(complaints) <= 3


ABSENT = """
import sys, traceback

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter")):
            # redis-py looks for the SDK when it is imported, whether one traces or not.
            if not any("/redis/" in frame.filename for frame in traceback.extract_stack()):
                print("wanted:", name, file=sys.stderr)
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""


@pytest.fixture
def without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes started now find neither SDK nor exporter, and say so when they look."""
    (tmp_path / "absent").mkdir()
    (tmp_path / "absent/sitecustomize.py").write_text(ABSENT)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "absent"))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")


@pytest.mark.usefixtures("without_the_extra")
def test_without_tracing_nothing_of_it_is_imported(
    checkpoint: Path, tmp_path: Path, gallery: Images, query: ImageDescriptors
) -> None:
    images = dict(list(gallery.items())[:5])
    with running(checkpoint, tmp_path) as service:
        assert service.register(images).is_success
        assert service.rerank(query, list(images)).status_code == 200
        assert service.rerank(query, ["gone"]).status_code == 404
        assert service.stop() == 0
        assert "wanted:" not in service.log
        assert not any("trace_id" in line for line in lines_of(service))


@pytest.mark.usefixtures("without_the_extra")
def test_tracing_without_the_extra_is_one_line(checkpoint: Path, tmp_path: Path) -> None:
    arguments = ["--checkpoint", checkpoint, "--data-dir", tmp_path, "--tracing", "otlp"]
    process = subprocess.run(
        [LOCORE, "serve", *map(str, arguments), "--port", str(free_port())],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.returncode == 2
    (line,) = [line for line in process.stderr.splitlines() if not line.startswith("wanted:")]
    assert "pip install 'locore[tracing]'" in line
