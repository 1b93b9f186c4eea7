"""The parts that the routes share, made at start-up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request
from opentelemetry.trace import Tracer

from model.model_info import ModelInfo
from service.api.errors import UnavailableError
from service.batching.batcher import Batcher
from service.batching.worker import Worker
from service.body.intake import Intake
from service.gallery.registered_images import Gallery
from service.gallery.store import GalleryStore
from service.picture_extraction.picture_queue import ExtractionQueue
from service.settings import Settings
from service.watch.metrics import REJECTED

MAX_BODIES = 4
"""Memory for bodies, in bodies of the largest size."""


@dataclass(eq=False)
class ServiceState:
    settings: Settings
    store_url: str = field(repr=False)
    model: ModelInfo
    store: GalleryStore
    gallery: Gallery
    worker: Worker
    batcher: Batcher
    extraction: ExtractionQueue
    tracer: Tracer
    draining: bool = False
    intake: Intake = field(init=False)

    def __post_init__(self) -> None:
        self.intake = Intake(MAX_BODIES * self.settings.max_payload_bytes)

    def refusal(self) -> tuple[str, UnavailableError] | None:
        """(reason for `locore_rejected_total`, error) while no request is accepted, else None."""
        if self.draining:
            why = UnavailableError("the service is shutting down", code="shutting_down")
            return "shutting_down", why
        problem = self.batcher.problem
        if not self.worker.warm or problem:
            return "not_ready", UnavailableError(problem or "the model is not warm yet")
        return None


async def service_state(request: Request) -> ServiceState:
    state: ServiceState = request.app.state.service
    return state


State = Annotated[ServiceState, Depends(service_state)]


async def accepting(state: State) -> None:
    """Raises UnavailableError while the service drains or cannot score."""
    refusal = state.refusal()
    if refusal is not None:
        reason, error = refusal
        REJECTED.labels(reason).inc()
        error.retry_after = 5
        raise error
