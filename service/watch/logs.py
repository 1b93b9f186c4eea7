"""The log: structlog formats our own lines and those of the standard library (uvicorn, redis)."""

from __future__ import annotations

import io
import logging
import sys
import time
from typing import Literal, TextIO

import structlog
from asgi_correlation_id import correlation_id
from opentelemetry import trace
from structlog.types import EventDict, ExcInfo, Processor

_SELDOM_SECONDS = 60.0
_SEVERAL_LINES = {"exception", "stack"}

# Locals of a frame may hold the store's password and a caller's descriptors.
_TRACEBACKS = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)


def configure_logging(log_format: Literal["text", "json"]) -> None:
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        _request_id,
        _trace_ids,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.ExtraAdder(),
        _without_uvicorns_colours,
    ]
    # JSON escapes control characters itself.
    ending: list[Processor] = (
        [structlog.processors.ExceptionRenderer(_TRACEBACKS), structlog.processors.JSONRenderer()]
        if log_format == "json"
        else [
            _printable_fields,
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=_printable_traceback
            ),
        ]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *ending],
        )
    )
    handler.addFilter(_Seldom())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for noisy in ("httpx", "httpcore"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def current_ids() -> dict[str, str]:
    """`trace_id` and `span_id` of the current span; empty where nothing is traced."""
    span = trace.get_current_span().get_span_context()
    if not span.is_valid:
        return {}
    return {
        "trace_id": trace.format_trace_id(span.trace_id),
        "span_id": trace.format_span_id(span.span_id),
    }


class _Seldom(logging.Filter):
    """Logs once a minute that the spans' collector is away; the exporter would log each attempt."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith("opentelemetry"):
            return True
        now, key = time.monotonic(), (record.name, str(record.msg))
        if now - self._said.get(key, -_SELDOM_SECONDS) < _SELDOM_SECONDS:
            return False
        self._said[key] = now
        return True


def _request_id(_: object, __: str, event: EventDict) -> EventDict:
    request_id = correlation_id.get()
    if request_id:
        event["request_id"] = request_id
    return event


def _trace_ids(_: object, __: str, event: EventDict) -> EventDict:
    event.update(current_ids())
    return event


def _printable_fields(_: object, __: str, event: EventDict) -> EventDict:
    """Escapes control characters, which texts of clients may contain for terminals."""
    for name, value in event.items():
        if isinstance(value, str) and name not in _SEVERAL_LINES:
            event[name] = printable(value.rstrip("\n"))
    return event


def printable(text: str) -> str:
    """Escapes characters that are not printable, including line breaks."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _printable_traceback(stream: TextIO, error: ExcInfo) -> None:
    text = io.StringIO()
    structlog.dev.plain_traceback(text, error)
    stream.write("\n".join(printable(line.expandtabs()) for line in text.getvalue().split("\n")))


def _without_uvicorns_colours(_: object, __: str, event: EventDict) -> EventDict:
    event.pop("color_message", None)
    return event
