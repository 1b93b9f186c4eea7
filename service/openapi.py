"""The OpenAPI document of the service."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from service.api.schemas import AliasRequest, ExtractRequest, RegisterRequest, RerankRequest


def openapi_document(app: FastAPI) -> dict[str, Any]:
    """FastAPI's document, plus the bodies that the routes parse themselves, minus the default shape
    of validation errors, which this service never uses."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            summary=app.summary,
            routes=app.routes,
            # The path at a proxy, or where the document itself comes from.
            servers=[{"url": app.root_path}] if app.root_path else None,
        )
        schemas = document["components"]["schemas"]
        for model in (RerankRequest, RegisterRequest, ExtractRequest, AliasRequest):
            own = model.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas |= own.pop("$defs", {})
            schemas[model.__name__] = own
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        app.openapi_schema = document
    return app.openapi_schema
