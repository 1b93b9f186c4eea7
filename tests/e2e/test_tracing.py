"""Spans as a real collector gets them from a real service, and the ids in its log."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from locore_client import rerank_body
from model.descriptors import ImageDescriptors
from tests.e2e.collector import (
    ERROR,
    SERVER_KIND,
    CollectedSpan,
    Collector,
    collecting,
    lines_of,
)
from tests.e2e.service import RunningService, running

Images = dict[str, ImageDescriptors]
NEAR = 5.0
"""Milliseconds that a span and a timing of the answer may differ by."""


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as started:
        yield started


@pytest.fixture(scope="module")
def traced(
    checkpoint: Path,
    gallery: Images,
    collector: Collector,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[RunningService]:
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        # Not for what is on this machine.
        patch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        patch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        folder = tmp_path_factory.mktemp("traced")
        service = stack.enter_context(running(checkpoint, folder, tracing="otlp"))
        assert service.register(dict(list(gallery.items())[:210])).is_success
        yield service


class Caller:
    """A client that is traced itself: a trace of its own for each call."""

    def __init__(self, *, sampled: bool = True) -> None:
        self.trace_id, self.span_id = secrets.token_hex(16), secrets.token_hex(8)
        flags = "01" if sampled else "00"
        self.headers = {"traceparent": f"00-{self.trace_id}-{self.span_id}-{flags}"}


def rerank(
    service: RunningService, query: ImageDescriptors, ids: list[str], **options: Any
) -> tuple[httpx.Response, Caller]:
    caller = Caller()
    collection = options.pop("collection", "default")
    body = rerank_body(query, ids, collection, **options)
    return service.http.post("/rerank", json=body, headers=caller.headers), caller


def split(spans: list[CollectedSpan]) -> tuple[CollectedSpan, list[CollectedSpan]]:
    """(the server span, its children), after checking that they nest and all have ended."""
    (server,) = [span for span in spans if span.kind == SERVER_KIND]
    children = [span for span in spans if span is not server]
    for span in children:
        assert span.parent == server.span_id
        assert server.start <= span.start <= span.end
        # The answer is out before what was cancelled has ended.
        assert span.end <= server.end + NEAR / 1000
    return server, children


def test_the_stages_of_a_reranking_are_children_of_the_callers_trace(
    traced: RunningService, collector: Collector, gallery: Images, query: ImageDescriptors
) -> None:
    answer, caller = rerank(traced, query, list(gallery)[:50])
    server, stages = split(collector.trace(caller.trace_id))
    assert (server.name, server.parent) == ("POST /rerank", caller.span_id)
    assert [span.name for span in stages] == ["decode", "fetch", "queue", "inference"]
    timings = answer.json()["timings_ms"]
    for span in stages:
        assert span.milliseconds == pytest.approx(timings[span.name], abs=NEAR)
        assert span.status == 0
    usage = answer.json()["usage"]
    wanted = {
        "http.request.method": "POST",
        "http.route": "/rerank",
        "http.response.status_code": 200,
        "locore.model": "tiny",
        "locore.images": usage["images"],
        "locore.windows": usage["windows"],
        "locore.tokens": usage["tokens"],
        "locore.request_id": answer.headers["X-Request-ID"],
    }
    assert wanted.items() <= server.attributes.items()
    inference = stages[-1].attributes
    assert (inference["locore.images"], inference["locore.batch.windows"]) == (50, 1)
    assert inference["locore.tokens"] == usage["tokens"] <= inference["locore.batch.tokens"]
    assert server.resource["service.name"] == "locore"
    assert server.resource["deployment.environment.name"] == "test"


def test_every_window_has_its_wait_and_its_pass(
    traced: RunningService, collector: Collector, gallery: Images, query: ImageDescriptors
) -> None:
    answer, caller = rerank(traced, query, list(gallery)[:30], window=10, stride=5)
    _, stages = split(collector.trace(caller.trace_id))
    assert [span.name for span in stages] == ["decode", "fetch", *["queue", "inference"] * 5]
    timings = answer.json()["timings_ms"]
    for name in ("queue", "inference"):
        total = sum(span.milliseconds for span in stages if span.name == name)
        assert total == pytest.approx(timings[name], abs=NEAR)
    for one, following in itertools.pairwise(stages[2:]):
        assert following.start == pytest.approx(one.end, abs=1e-4)


@pytest.mark.parametrize("header", [None, "00-not-a-trace", f"00-{'0' * 32}-{'0' * 16}-01"])
def test_a_request_of_no_trace_begins_one(
    traced: RunningService, collector: Collector, header: str | None
) -> None:
    mark = secrets.token_hex(4)
    headers = {"X-Request-ID": mark} | ({"traceparent": header} if header else {})
    assert traced.http.get("/gallery", headers=headers).is_success
    server, (store,) = split(collector.trace(access_line(traced, mark)["trace_id"]))
    assert (server.name, server.parent, store.name) == ("GET /gallery", "", "store")


def test_a_registration_is_decoded_and_stored(
    traced: RunningService, collector: Collector, gallery: Images
) -> None:
    caller = Caller()
    traced.http.headers.update(caller.headers)
    try:
        assert traced.register({"image-000": gallery["image-000"]}).is_success
    finally:
        del traced.http.headers["traceparent"]
    server, stages = split(collector.trace(caller.trace_id))
    assert (server.name, server.attributes["locore.images"]) == ("POST /gallery", 1)
    assert [span.name for span in stages] == ["decode", "store"]


@pytest.mark.parametrize(
    ("change", "status", "code", "stage", "stage_code"),
    [
        ({"temperature": "warm"}, 422, "validation_error", "decode", "validation_error"),
        ({"collection": "gone"}, 404, "gallery_ids_missing", "fetch", "gallery_ids_missing"),
    ],
)
def test_errors_are_marked_where_they_happened(
    traced: RunningService,
    collector: Collector,
    gallery: Images,
    query: ImageDescriptors,
    change: dict[str, Any],
    status: int,
    code: str,
    stage: str,
    stage_code: str,
) -> None:
    options = {"window": 2, "stride": 1, "direction": "end-to-start-to-end"}
    answer, caller = rerank(traced, query, list(gallery)[:210], **options | change)
    assert answer.status_code == status
    server, stages = split(collector.trace(caller.trace_id))
    assert server.attributes["http.response.status_code"] == status
    assert server.attributes["locore.error.code"] == code
    # Of a server span only what is the server's fault is an error.
    assert server.status == 0
    (failed,) = [span for span in stages if span.status == ERROR]
    assert failed is stages[-1]
    assert failed.name == stage
    assert (failed.message, failed.attributes["error.type"]) == (stage_code, stage_code)


def test_a_list_that_could_not_be_done_in_time_has_no_pass(
    traced: RunningService, collector: Collector, gallery: Images, query: ImageDescriptors
) -> None:
    options = {"window": 2, "stride": 1, "direction": "end-to-start-to-end", "timeout_ms": 60}
    answer, caller = rerank(traced, query, list(gallery)[:210], **options)
    assert answer.status_code == 504
    server, stages = split(collector.trace(caller.trace_id))
    assert (server.status, server.attributes["locore.error.code"]) == (ERROR, "deadline_exceeded")
    assert not {span.name for span in stages} & {"queue", "inference"}


def test_a_disconnect_leaves_no_span_open(
    traced: RunningService, collector: Collector, gallery: Images, query: ImageDescriptors
) -> None:
    caller = Caller()
    body = rerank_body(query, list(gallery)[:210], "default", window=2, stride=1)
    body["direction"] = "end-to-start-to-end"
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{traced.url}/rerank", json=body, headers=caller.headers, timeout=0.3, trust_env=False
        )
    server, stages = split(collector.trace(caller.trace_id))
    assert server.attributes["http.response.status_code"] == 499
    assert server.attributes["locore.error.code"] == "client_disconnected"
    assert (stages[-1].status, stages[-1].message) == (ERROR, "cancelled")
    assert all(span.status == 0 for span in stages[:-1])


def test_health_and_metrics_are_not_traced_and_an_unsampled_request_is_only_logged(
    traced: RunningService, collector: Collector
) -> None:
    unwanted = [Caller(), Caller(), Caller(), Caller(sampled=False)]
    paths = ("/health/live", "/health/ready", "/metrics", "/gallery")
    for path, caller in zip(paths, unwanted, strict=True):
        assert traced.http.get(path, headers=caller.headers).is_success
    last = Caller()
    traced.http.get("/gallery", headers=last.headers)
    collector.trace(last.trace_id)
    assert not {span.trace_id for span in collector.spans} & {c.trace_id for c in unwanted}
    logged = {line.get("trace_id") for line in lines_of(traced)}
    assert [caller.trace_id in logged for caller in unwanted] == [False, False, False, True]


def access_line(service: RunningService, request_id: str) -> dict[str, Any]:
    """The one line of a request, which is written when the answer is out."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        lines = [line for line in lines_of(service) if line.get("request_id") == request_id]
        if lines:
            (line,) = lines
            return line
        time.sleep(0.02)
    raise AssertionError(f"no line of request {request_id} has come")


def test_the_log_has_the_ids_of_trace_span_and_request(
    traced: RunningService, collector: Collector, gallery: Images, query: ImageDescriptors
) -> None:
    answer, caller = rerank(traced, query, list(gallery)[:5])
    line = access_line(traced, answer.headers["X-Request-ID"])
    server, _ = split(collector.trace(caller.trace_id))
    assert (line["trace_id"], line["span_id"]) == (caller.trace_id, server.span_id)
