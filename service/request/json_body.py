"""JSON bodies in the routes: parsing, and their description in the OpenAPI document."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel

from locore_client.contract import ErrorResponse
from service.api.schemas import RegisterRequest
from service.body.outline import read_request
from service.state import ServiceState

_Request = TypeVar("_Request", bound=BaseModel)
_Decoded = TypeVar("_Decoded")


async def parse(
    request: Request,
    state: ServiceState,
    schema: type[_Request],
    decode: Callable[[_Request], _Decoded],
    around: Callable[[bytes], AbstractContextManager[None]] = lambda _: nullcontext(),
) -> tuple[_Request, _Decoded]:
    """Reads, validates and decodes a JSON body. A registration may be as large as any body, others
    at most `max_rerank_bytes`. `around`: a context manager for the body as received.

    Raises ApiError: see `service.body.intake` and `service.body.outline`."""
    settings = state.settings
    max_images = settings.max_images_per_request
    limit = settings.max_payload_bytes
    if schema is not RegisterRequest:
        limit = min(limit, settings.max_rerank_bytes)
    return await state.intake.json(
        request, limit, lambda body: read_request(body, schema, decode, max_images), around
    )


def documented_body(schema: type[BaseModel]) -> dict[str, Any]:
    """`openapi_extra` of a route that parses its body by itself."""
    reference = {"$ref": f"#/components/schemas/{schema.__name__}"}
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": reference}}}
    }


def documented_errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": ErrorResponse} for status in statuses}
