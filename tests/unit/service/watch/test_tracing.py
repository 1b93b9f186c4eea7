"""What tracing refuses, and spans of stages and windows as the SDK records them."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode, Tracer

from model.checkpoint import LoadedModel
from model.windows import RerankOptions, Window
from service.api.errors import ApiError, UnprocessableError
from service.batching.batcher import Batcher
from service.batching.job import Job
from service.batching.speed import Speed
from service.batching.window_queue import WindowQueue
from service.batching.worker import Worker
from service.cli.main import EXPECTED
from service.gallery.record import DamagedRecordError
from service.watch.logs import configure_logging
from service.watch.tracing import NOT_TRACED, Tracing, TracingError, stage_span
from tests.factories import image, load_tiny

EXPORTER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"


class Recorder:
    def __init__(self) -> None:
        self._memory = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._memory))
        self.tracer: Tracer = provider.get_tracer("test")

    @property
    def spans(self) -> list[ReadableSpan]:
        """In the order of their start."""
        return sorted(self._memory.get_finished_spans(), key=lambda span: span.start_time or 0)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def test_tracing_that_cannot_be_had_is_a_users_error() -> None:
    assert TracingError in EXPECTED


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, EXPORTER, None)
    with pytest.raises(TracingError, match=r"LOCORE_TRACING.*pip install 'locore\[tracing\]'"):
        Tracing("otlp")
    assert Tracing("off").tracer is NOT_TRACED


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http:///v1/traces"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:port"),
    ],
)
def test_a_variable_that_cannot_work_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(TracingError, match=f"^{variable}: "):
        Tracing("otlp")
    assert Tracing("off").tracer is NOT_TRACED


def test_a_queue_that_cannot_be_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "1")
    with pytest.raises(TracingError, match="OTEL_BSP_"):
        Tracing("otlp").start()


def test_the_sdk_can_be_turned_off_as_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    with stage_span(Tracing("otlp").tracer, "decode") as span:
        assert not span.is_recording()


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (UnprocessableError("no"), "validation_error", "validation_error"),
        (asyncio.CancelledError(), "cancelled", "cancelled"),
        (DamagedRecordError("img-1", "torn"), "DamagedRecordError", "internal"),
    ],
)
def test_what_a_stage_raises_marks_it(
    recorder: Recorder, error: BaseException, kind: str, code: str
) -> None:
    with pytest.raises(type(error)), stage_span(recorder.tracer, "fetch"):
        raise error
    (span,) = recorder.spans
    assert dict(span.attributes or {}) == {"error.type": kind}
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, code)


class PoisonedWorker(Worker):
    """The real worker, but lists of 2 images cannot be scored."""

    async def score(self, windows: Sequence[Window]) -> list[NDArray[np.float32]]:
        if any(len(window.gallery) == 2 for window in windows):
            raise RuntimeError("a window that cannot be scored")
        return await super().score(windows)


def score_lists(model: LoadedModel, tracer: Tracer, sizes: list[int], window: int) -> list[object]:
    """Lists that arrive together, each in a span named by its size; results or errors."""
    config = model.config

    async def one(batcher: Batcher, size: int) -> object:
        rng = np.random.default_rng(size)
        images = [image(rng, config) for _ in range(size)]
        options = RerankOptions(0.0, 1.0, window, 1, "end-to-start")
        job = Job(config, size, options)
        job.begin(image(rng, config), images, None)
        with tracer.start_as_current_span(str(size)), batcher.admit(job):
            await batcher.score(job)
        return job

    async def work() -> list[object]:
        worker = PoisonedWorker(model)
        speed = Speed(per_pass=0.003, per_window=0.002, per_unit=1e-5)
        queue = WindowQueue(speed, max_batch_tokens=10_000, max_queue_tokens=10_000)
        batcher = Batcher(queue, worker, tracer)
        batcher.start()
        results = await asyncio.gather(*(one(batcher, n) for n in sizes), return_exceptions=True)
        await batcher.close()
        worker.close()
        return list(results)

    return asyncio.run(work())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_tiny(tmp_path_factory.mktemp("model"))


def of_list(recorder: Recorder, size: int) -> list[tuple[str, str | None]]:
    """(name, what went wrong) of a list's spans."""
    (parent,) = [span for span in recorder.spans if span.name == str(size)]
    mine = [s for s in recorder.spans if s.parent and s.parent.span_id == parent.context.span_id]
    return [(span.name, span.status.description) for span in mine]


def test_a_list_that_fails_is_marked_and_those_beside_it_show_both_passes(
    model: LoadedModel, recorder: Recorder
) -> None:
    three, two = score_lists(model, recorder.tracer, [3, 2], window=4)
    assert isinstance(two, ApiError)
    assert not isinstance(three, BaseException)
    assert of_list(recorder, 3) == [("queue", None), ("inference", "internal"), ("inference", None)]
    # Its second failure is the list's own and ends it.
    assert of_list(recorder, 2) == [("queue", None), *[("inference", "internal")] * 2]


def test_lists_of_one_pass_say_how_many_shared_it(model: LoadedModel, recorder: Recorder) -> None:
    score_lists(model, recorder.tracer, [3, 4, 5], window=8)
    shared = [span for span in recorder.spans if span.name == "inference"]
    assert len(shared) == 3
    assert {dict(s.attributes or {})["locore.batch.windows"] for s in shared} == {3}
    assert len({dict(s.attributes or {})["locore.batch.tokens"] for s in shared}) == 1


def test_a_list_of_very_many_windows_does_not_flood_the_collector(
    model: LoadedModel, recorder: Recorder
) -> None:
    score_lists(model, recorder.tracer, [80], window=3)
    assert of_list(recorder, 80) == [("queue", None), ("inference", None)] * 64


def test_the_exporters_complaints_are_logged_once_a_minute(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", root.handlers[:])
    monkeypatch.setattr(root, "level", root.level)
    configure_logging("json")
    for attempt in range(5):
        logging.getLogger(EXPORTER).warning("Transient error, retrying in %.2fs.", attempt)
        logging.getLogger("redis").warning("away, attempt %d", attempt)
    output = capsys.readouterr().err
    assert (output.count("Transient"), output.count("away")) == (1, 5)
