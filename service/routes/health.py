"""/health and /metrics."""

from __future__ import annotations

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from locore_client.contract import Health
from service.request.json_body import documented_errors
from service.state import State

router = APIRouter(tags=["operation"])


@router.get("/health/live")
async def live() -> Health:
    """The process can answer."""
    return Health(status="ok")


@router.get("/health/ready", responses=documented_errors(503))
async def ready(state: State) -> Health:
    """The model is warm, the worker lives and the store answers; else 503 with what is wrong."""
    refusal = state.refusal()
    if refusal is not None:
        raise refusal[1]
    await state.store.ping()
    return Health(status="ok")


@router.get("/metrics", response_class=Response)
async def metrics() -> Response:
    """Prometheus text."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
