"""An OpenTelemetry collector for tests: takes OTLP over HTTP, keeps the spans."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.e2e.service import RunningService

SERVER_KIND = 2
ERROR = 2


@dataclass(frozen=True)
class CollectedSpan:
    """`start` and `end` in seconds since 1970; `status` 0 is unset, 2 an error."""

    name: str
    trace_id: str
    span_id: str
    parent: str
    kind: int
    start: float
    end: float
    status: int
    message: str
    attributes: dict[str, Any]
    resource: dict[str, Any]

    @property
    def milliseconds(self) -> float:
        return 1000 * (self.end - self.start)


class Collector:
    def __init__(self, url: str) -> None:
        self.url = url
        self.spans: list[CollectedSpan] = []

    def trace(self, trace_id: str) -> list[CollectedSpan]:
        """Its spans in the order of their start, once the server's own has come."""
        until = time.monotonic() + 20
        while time.monotonic() < until:
            spans = [span for span in self.spans if span.trace_id == trace_id]
            if any(span.kind == SERVER_KIND for span in spans):
                return sorted(spans, key=lambda span: span.start)
            time.sleep(0.02)
        raise AssertionError(f"no server span of trace {trace_id} has come")

    def take(self, body: bytes) -> None:
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = _values(group.resource.attributes)
            for scope in group.scope_spans:
                for span in scope.spans:
                    self.spans.append(
                        CollectedSpan(
                            span.name,
                            span.trace_id.hex(),
                            span.span_id.hex(),
                            span.parent_span_id.hex(),
                            span.kind,
                            span.start_time_unix_nano / 1e9,
                            span.end_time_unix_nano / 1e9,
                            span.status.code,
                            span.status.message,
                            _values(span.attributes),
                            resource,
                        )
                    )


def _values(attributes: Any) -> dict[str, Any]:
    return {
        attribute.key: getattr(attribute.value, attribute.value.WhichOneof("value"))
        for attribute in attributes
    }


@contextmanager
def collecting() -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            collector.take(self.rfile.read(int(self.headers["Content-Length"])))
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200 if self.path == "/v1/traces" else 404)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector = Collector(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()


def lines_of(service: RunningService) -> list[dict[str, Any]]:
    """What the service has logged."""
    return [json.loads(line) for line in service.log.splitlines()]
