"""Tracing: the spans of a request and its stages, sent to an OpenTelemetry collector.

FastAPI makes the server span and continues `traceparent`; the stages are ours. The OpenTelemetry
API comes with FastAPI and does nothing by itself. The SDK and the exporter, the extra `tracing`,
are imported only where `LOCORE_TRACING` asks for them.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import structlog
from fastapi.telemetry import TelemetryConfig
from opentelemetry import context, trace
from opentelemetry.trace import INVALID_SPAN, NoOpTracer, Span, Status, StatusCode, Tracer

from locore_client.proxies import proxy_for
from service import __version__
from service.api.errors import ApiError

if TYPE_CHECKING:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

NOT_TRACED = NoOpTracer()
_NO_STAGE = nullcontext(INVALID_SPAN)
_NO_WINDOWS = nullcontext[None]()

_FLUSH_SECONDS = 3.0
_MAX_WINDOWS = 64
"""Windows of one list that get spans: a client may request thousands, and the SDK keeps 2,048."""

ERROR_TYPE = "error.type"

_Attributes = Mapping[str, int | str]

log = structlog.get_logger(__name__)


class TracingError(ValueError):
    """Tracing is enabled but not possible."""


class Tracing:
    """`tracer` makes spans immediately; they are sent between `start` and `stop`."""

    def __init__(self, exporter: Literal["off", "otlp"]) -> None:
        """Raises TracingError."""
        self.tracer: Tracer = NOT_TRACED
        self._provider: TracerProvider | None = None
        self._exporter: OTLPSpanExporter | None = None
        self._processor: SpanProcessor | None = None
        if exporter == "otlp":
            self._provider, self._exporter = _otlp()
            self.tracer = self._provider.get_tracer("locore", __version__)

    def telemetry(self, untraced: Callable[[MutableMapping[str, Any]], bool]) -> TelemetryConfig:
        """FastAPI's configuration: only server spans, or none. `untraced`: whether a request, by
        its ASGI scope, gets no span.
        """
        return TelemetryConfig(
            tracing=self._provider is not None,
            tracer_provider=self._provider,
            exclude=untraced,
            metrics=False,
            logs=False,
            operation_spans=False,
            auto_configure=False,
        )

    def start(self) -> None:
        """Raises TracingError."""
        if self._provider is None or self._exporter is None:
            return
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        try:
            self._processor = BatchSpanProcessor(self._exporter)
        except ValueError as error:
            raise TracingError(f"OTEL_BSP_…: {error}") from None
        self._provider.add_span_processor(self._processor)

    async def stop(self) -> None:
        """Sends the remaining spans. If the collector is away, this takes three seconds."""
        if self._processor is None:
            return
        # The SDK waits for half a minute, which cannot be set, so this thread is abandoned.
        flush = threading.Thread(target=self._processor.shutdown, daemon=True)
        flush.start()
        await asyncio.to_thread(flush.join, _FLUSH_SECONDS)
        if flush.is_alive():
            log.warning("spans_lost", why="the collector did not take the last ones in time")


def _otlp() -> tuple[TracerProvider, OTLPSpanExporter]:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from requests import Session
    except ImportError as error:
        raise TracingError(
            f"--tracing / LOCORE_TRACING: {error.name} is not installed; "
            "pip install 'locore[tracing]'"
        ) from None
    _check_environment()
    session = Session()
    session.trust_env = _is_behind_a_proxy()
    exporter = OTLPSpanExporter(session=session)
    ours = {"service.name": "locore", "service.version": __version__}
    resource = Resource.create(ours | dict(OTELResourceDetector().detect().attributes))
    try:
        return TracerProvider(resource=resource, shutdown_on_exit=False), exporter
    except ValueError as error:
        raise TracingError(f"OTEL_…: {error}") from None


def _check_environment() -> None:
    """Checks what the exporter would notice only when it sends, or not at all."""
    for kind in ("_TRACES", ""):
        name = f"OTEL_EXPORTER_OTLP{kind}_PROTOCOL"
        if protocol := os.environ.get(name):
            if protocol != "http/protobuf":
                raise TracingError(f"{name}: {protocol!r}, but spans are sent as http/protobuf")
            break
    for kind in ("_TRACES", ""):
        name = f"OTEL_EXPORTER_OTLP{kind}_ENDPOINT"
        if endpoint := os.environ.get(name):
            if not _is_http(endpoint):
                raise TracingError(f"{name}: not an http:// or https:// address")
            break


def _is_behind_a_proxy() -> bool:
    """Whether the environment's proxies apply to the collector: not if it is on this machine."""
    names = (f"OTEL_EXPORTER_OTLP{kind}_ENDPOINT" for kind in ("_TRACES", ""))
    endpoint = next(filter(None, map(os.environ.get, names)), "http://localhost:4318")
    try:
        return proxy_for(endpoint) is not None
    except ValueError as error:
        raise TracingError(f"OTEL_…: {error}") from None


def _is_http(address: str) -> bool:
    try:
        url = urlsplit(address)
        return url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        return False


def stage_span(tracer: Tracer, name: str) -> AbstractContextManager[Span]:
    """A span of a request's stage, as a child of the current span; an exception marks it as
    failed."""
    return _NO_STAGE if tracer is NOT_TRACED else _stage_span(tracer, name)


@contextmanager
def _stage_span(tracer: Tracer, name: str) -> Iterator[Span]:
    with tracer.start_as_current_span(
        name, record_exception=False, set_status_on_exception=False
    ) as span:
        try:
            yield span
        except BaseException as error:
            _mark_failed(span, error)
            raise


def _mark_failed(span: Span, error: BaseException) -> None:
    kind, code = type(error).__qualname__, "internal"
    if isinstance(error, ApiError):
        kind = code = error.code
    elif isinstance(error, asyncio.CancelledError):
        # Ended by the deadline or the client; the server span says which.
        kind = code = "cancelled"
    span.set_attribute(ERROR_TYPE, kind)
    span.set_status(Status(StatusCode.ERROR, code))


class WindowSpans:
    """The spans `queue` and `inference` of one list, a pair for each window. Both happen in the
    batcher's task, for many requests at once. The batcher reports their times in seconds of
    `time.perf_counter`; the spans are made at the end, while the device computes.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._parent = context.get_current()
        self._since = time.perf_counter()
        self._pass: _Attributes | None = None
        self._past: list[tuple[str, float, float, _Attributes]] = []

    def begin(self, at: float, attributes: _Attributes) -> None:
        """The wait of the window ends; a forward pass with these attributes begins."""
        if self._pass is None:
            self._ended("queue", at, {})
        else:
            # A pass with other windows failed, and this window is tried again alone.
            self._ended("inference", at, {**self._pass, ERROR_TYPE: "internal"})
        self._pass = attributes

    def end(self, at: float) -> None:
        """The pass ends. The next window, if any, waits from now on."""
        self._ended("inference", at, self._pass or {})
        self._pass = None

    def close(self, error: BaseException | None) -> None:
        """`error`: what ended the list before its last window, if anything."""
        # perf_counter has no epoch; spans need the system clock.
        now = time.perf_counter()
        epoch = time.time_ns() - round(now * 1e9)
        for name, start, end, attributes in self._past[: 2 * _MAX_WINDOWS]:
            span = self._span(name, epoch, start, attributes)
            if ERROR_TYPE in attributes:
                span.set_status(Status(StatusCode.ERROR, str(attributes[ERROR_TYPE])))
            span.end(epoch + round(end * 1e9))
        if error is not None:
            name = "queue" if self._pass is None else "inference"
            last = self._span(name, epoch, self._since, self._pass or {})
            _mark_failed(last, error)
            last.end(epoch + round(now * 1e9))

    def _ended(self, name: str, at: float, attributes: _Attributes) -> None:
        self._past.append((name, self._since, at, attributes))
        self._since = at

    def _span(self, name: str, epoch: int, start: float, attributes: _Attributes) -> Span:
        return self._tracer.start_span(
            name, self._parent, attributes=attributes, start_time=epoch + round(start * 1e9)
        )


def window_spans(tracer: Tracer) -> AbstractContextManager[WindowSpans | None]:
    """Yields the spans of a list while the batcher has it; None if the request is not recorded."""
    if not trace.get_current_span().is_recording():
        return _NO_WINDOWS
    return _window_spans(WindowSpans(tracer))


@contextmanager
def _window_spans(spans: WindowSpans) -> Iterator[WindowSpans]:
    try:
        yield spans
    except BaseException as error:
        spans.close(error)
        raise
    spans.close(None)
