"""The application: makes its parts at start-up, in order, and closes them in reverse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import structlog
from fastapi import FastAPI

from model.config import ModelConfig
from model.learnt_metric import Metric
from service import __version__
from service.batching.batcher import Batcher
from service.batching.window_queue import WindowQueue
from service.batching.worker import Scorer, Worker
from service.gallery.collection_metrics import load_metrics
from service.gallery.embedded import EmbeddedValkey
from service.gallery.registered_images import Gallery
from service.gallery.store_connection import connect_store
from service.gallery.sweeper import Sweeper
from service.machine.memory import memory_limit
from service.openapi import openapi_document
from service.page.endpoints import install_page
from service.picture_extraction.extractor_process import ExtractorProcess
from service.picture_extraction.picture_queue import ExtractionQueue
from service.request.error_answers import install_error_handlers
from service.request.middleware import install_middleware, quiet
from service.routes import collections, docs, extract, gallery, health, info, rerank
from service.settings import CHECKPOINTS_EXTRACTOR, EMBEDDED, NO_EXTRACTOR, Settings
from service.state import MAX_BODIES, ServiceState
from service.watch.metrics import MEMORY_LIMIT, MODEL_INFO, QUEUE_TOKENS_LIMIT, READY
from service.watch.tracing import Tracing

log = structlog.get_logger(__name__)


def create_app(settings: Settings, scorer: Scorer) -> FastAPI:
    """The model is loaded before there is an app: a bad checkpoint is a command-line error.

    Raises TracingError and MetricError."""
    tracing = Tracing(settings.tracing)
    config = scorer.info.config
    metrics = load_metrics(settings.metrics, config)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            app.state.service = await _start(settings, scorer, metrics, tracing, stack)
            yield

    app = FastAPI(
        title="LOCORE",
        version=__version__,
        summary="Image re-ranking",
        lifespan=lifespan,
        redirect_slashes=False,
        root_path=settings.root_path,
        docs_url=None,
        redoc_url=None,
        telemetry=tracing.telemetry(quiet),
    )
    install_middleware(app, settings.allowed_origins)
    install_error_handlers(app)
    for routes in (rerank, gallery, extract, collections, info, health, docs):
        app.include_router(routes.router)
    install_page(app, settings, config)
    app.openapi = lambda: openapi_document(app)  # type: ignore[method-assign]
    return app


@asynccontextmanager
async def _in_background(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait((task,))


async def _start(
    settings: Settings,
    scorer: Scorer,
    metrics: Mapping[str, Metric],
    tracing: Tracing,
    stack: AsyncExitStack,
) -> ServiceState:
    # First up, last down: what ends after it has spans that nobody sends.
    tracing.start()
    stack.push_async_callback(tracing.stop)
    url = settings.redis_url
    if url == EMBEDDED:
        valkey = EmbeddedValkey(settings.data_dir)
        stack.push_async_callback(valkey.stop)
        await valkey.start()
        url = valkey.url
    store = connect_store(url)
    store.condition.log_changes = True
    stack.push_async_callback(store.close)
    await stack.enter_async_context(_in_background(Sweeper(store).run()))
    worker = Worker(scorer)
    stack.callback(worker.close)
    model = scorer.info
    config = model.config
    MODEL_INFO.labels(config.name, model.device, model.dtype, model.kernel).set(1)
    if model.kernel_note:
        log.warning("slower_kernel", why=model.kernel_note)
    speed = await worker.warm_up()
    queue = WindowQueue(
        speed,
        max_batch_tokens=settings.max_batch_tokens,
        max_queue_tokens=settings.max_queue_tokens,
    )
    batcher = Batcher(queue, worker, tracing.tracer)
    batcher.start()
    stack.push_async_callback(batcher.close)
    log.info(
        "ready",
        checkpoint=config.name,
        device=model.device,
        kernel=model.kernel,
        store=settings.redis_url if settings.redis_url == EMBEDDED else "redis",
    )
    cached = Gallery(
        store,
        cache_bytes=settings.cache_bytes,
        dtype=settings.store_dtype,
        pool_locals=settings.pool_locals,
        metrics=metrics,
        thumbnail_bytes=settings.thumbnail_bytes,
    )
    extraction = _extraction(settings, config)
    stack.callback(extraction.close)
    state = ServiceState(
        settings, url, model, store, cached, worker, batcher, extraction, tracing.tracer
    )
    stack.callback(state.intake.close)
    QUEUE_TOKENS_LIMIT.set(settings.max_queue_tokens)
    MEMORY_LIMIT.set(memory_limit())
    READY.set_function(lambda: float(state.refusal() is None))
    return state


def _extraction(settings: Settings, config: ModelConfig) -> ExtractionQueue:
    """The first picture starts its process."""
    by_default = settings.extractor == CHECKPOINTS_EXTRACTOR
    expected = config.extractor if by_default else None
    name = config.extractor.name if by_default else settings.extractor
    process = ExtractorProcess(
        None if name == NO_EXTRACTOR else name, expected, config.descriptors_per_image
    )
    return ExtractionQueue(
        process,
        max_requests=settings.max_queued_pictures,
        max_bytes=MAX_BODIES * settings.max_payload_bytes,
    )
