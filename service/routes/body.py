"""Request bodies: read under a limit, parsed off the event loop, shown in the OpenAPI document."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from service.errors import ApiError, invalid_body
from service.schemas import ErrorResponse

_Request = TypeVar("_Request", bound=BaseModel)
_Decoded = TypeVar("_Decoded")


async def parse(
    body: bytes, schema: type[_Request], decode: Callable[[_Request], _Decoded]
) -> tuple[_Request, _Decoded]:
    """Validate a JSON body and decode its arrays, in a thread: both can take many milliseconds.

    Raises InvalidJsonError, UnprocessableError and what `decode` raises.
    """

    def work() -> tuple[_Request, _Decoded] | ApiError:
        try:
            request = schema.model_validate_json(body)
        except ValidationError as error:
            return invalid_body(error)
        return request, decode(request)

    found = await asyncio.to_thread(work)
    if isinstance(found, ApiError):
        raise found
    return found


def documented_body(schema: type[BaseModel]) -> dict[str, Any]:
    """`openapi_extra` of a route that parses its body by itself."""
    reference = {"$ref": f"#/components/schemas/{schema.__name__}"}
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": reference}}}
    }


def documented_errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": ErrorResponse} for status in statuses}
