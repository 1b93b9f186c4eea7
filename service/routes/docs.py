"""/docs: Swagger UI of the OpenAPI document, with files of this installation only."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse

from service.api.errors import NotFoundError
from service.page.endpoints import STATIC, static_response

_SWAGGER = Path(str(files("fastapi_offline"))) / "static"
_FILES = ("swagger-ui.css", "swagger-ui-bundle.js")
# Swagger UI sets styles on its elements and has its pictures in the style sheet.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)

router = APIRouter(include_in_schema=False)


@router.get("/docs")
async def docs() -> FileResponse:
    headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache"}
    return FileResponse(STATIC / "docs.html", headers=headers)


@router.get("/docs/{name}")
async def swagger_file(name: str, request: Request) -> Response:
    if name not in _FILES:
        raise NotFoundError("no such file")
    return await static_response(_SWAGGER, name, request)
