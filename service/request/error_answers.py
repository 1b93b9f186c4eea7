"""Turns every error into an answer in the contract's shape."""

from __future__ import annotations

import structlog
from asgi_correlation_id import correlation_id
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from opentelemetry import trace
from starlette.exceptions import HTTPException

from locore_client.contract import REQUEST_ID_HEADER
from service.api.errors import ApiError, field_name, invalid_fields, shortened
from service.gallery.record import DamagedRecordError

log = structlog.get_logger(__name__)


def error_response(error: ApiError) -> JSONResponse:
    headers = dict(error.headers)
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    trace.get_current_span().set_attribute("locore.error.code", error.code)
    body = {"code": error.code, "message": str(error), "details": error.details}
    return JSONResponse({"error": body}, error.status, headers)


def install_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def _api_error(_: Request, error: ApiError) -> JSONResponse:
        return error_response(error)

    @app.exception_handler(DamagedRecordError)
    async def _damaged_record(_: Request, error: DamagedRecordError) -> JSONResponse:
        log.error("damaged_record", image=error.image_id, why=str(error))
        return error_response(ApiError(f"{error}; register it again", id=error.image_id))

    @app.exception_handler(RequestValidationError)
    async def _invalid_parameters(_: Request, error: RequestValidationError) -> JSONResponse:
        faults = [(field_name(e["loc"][1:]), e["msg"]) for e in error.errors()]
        return error_response(invalid_fields(faults))

    @app.exception_handler(HTTPException)
    async def _http_error(request: Request, error: HTTPException) -> JSONResponse:
        codes = {404: "not_found", 405: "method_not_allowed"}
        answer = ApiError(
            f"{request.method} {shortened(request.url.path)}: {error.detail}",
            code=codes.get(error.status_code, "internal"),
        )
        answer.status = error.status_code
        response = error_response(answer)
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(Exception)
    async def _defect(_: Request, error: Exception) -> JSONResponse:
        log.error("internal_error", exc_info=error)
        response = error_response(ApiError("an internal error; the request id finds it in the log"))
        # This handler runs outside the middleware that sets the header on other answers.
        response.headers[REQUEST_ID_HEADER] = correlation_id.get() or ""
        return response
