"""POST /rerank."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import reduce

import numpy as np
from asgi_correlation_id import correlation_id
from fastapi import APIRouter, Depends, Request
from opentelemetry import trace

from model.config import ModelConfig
from model.descriptors import DescriptorSizes, first_stage_scores
from service.access import reader
from service.arrival import arrival_of, deadline_of
from service.batching.job import Job
from service.decoding import Decoded, check_list, check_picture, decode_image
from service.errors import (
    DeadlineExceededError,
    DescriptorDimMismatchError,
    GalleryIdsMissingError,
)
from service.gallery.record import GalleryRecord
from service.learnt_metrics import in_metric
from service.metrics import STAGE_SECONDS
from service.pictures import describe_query
from service.rerank_options import rerank_options
from service.routes.body import documented_body, documented_errors, parse
from service.routes.disconnect import unless_disconnected
from service.schemas import (
    RerankRequest,
    RerankResponse,
    Result,
    Timings,
    Usage,
)
from service.sizes import joined, misfit
from service.state import ServiceState, State, accepting
from service.tracing import stage_span

router = APIRouter(tags=["re-rank"])


@router.post(
    "/rerank",
    response_model=RerankResponse,
    dependencies=[Depends(reader), Depends(accepting)],
    openapi_extra=documented_body(RerankRequest),
    responses=documented_errors(400, 401, 403, 404, 413, 415, 422, 429, 500, 501, 503, 504),
)
async def rerank(request: Request, state: State) -> RerankResponse:
    """A better order of a shortlist, by the query's local descriptors or the query as a picture."""
    arrival = arrival_of(request)
    with stage_span(state.tracer, "decode"):
        asked, query = await parse(
            request,
            state,
            RerankRequest,
            lambda r: _query(r, state),
            lambda body: state.batcher.expect(deadline_of(body, arrival)),
        )
    decoded = time.monotonic()
    try:
        async with asyncio.timeout(arrival + asked.timeout_ms / 1000 - decoded):
            work = _rerank(asked, query, state, arrival, decoded)
            return await unless_disconnected(request, work)
    except TimeoutError:
        raise DeadlineExceededError("timeout_ms ran out") from None


def _query(request: RerankRequest, state: ServiceState) -> Decoded | bytes:
    """The picture that a query is, or its descriptors."""
    check_list(request)
    if request.query.image is not None:
        picture = request.query.image.data
        check_picture(picture, state.settings.max_image_bytes, "query.image")
        return picture
    decoded = decode_image(request.query, state.model.config, "query")
    return _in_metric(decoded, request, state)


def _in_metric(query: Decoded, request: RerankRequest, state: ServiceState) -> Decoded:
    """In the collection's metric, where it has one, as its images are."""
    metric = state.gallery.metrics.get(request.collection)
    whose = f"the metric of collection {request.collection!r}"
    return replace(query, image=in_metric(query.image, metric, whose, "query"))


async def _described(
    picture: bytes, request: RerankRequest, state: ServiceState, deadline: float
) -> Decoded:
    with stage_span(state.tracer, "extract"):
        query = await describe_query(picture, state, deadline)
    return await asyncio.to_thread(_in_metric, query, request, state)


async def _rerank(
    request: RerankRequest,
    query: Decoded | bytes,
    state: ServiceState,
    arrival: float,
    decoded: float,
) -> RerankResponse:
    config = state.model.config
    deadline = arrival + request.timeout_ms / 1000
    extracted = decoded
    if isinstance(query, bytes):
        # Before the list has a place: it takes none from those that come with descriptors.
        query = await _described(query, request, state, deadline)
        extracted = time.monotonic()
    span = trace.get_current_span()
    span.set_attributes({"locore.model": config.name, "locore.images": len(request.gallery_ids)})
    options = rerank_options(
        config,
        len(request.gallery_ids),
        alpha=request.alpha,
        temperature=request.temperature,
        window=request.window,
        stride=request.stride,
        direction=request.direction,
    )
    job = Job(config, len(request.gallery_ids), options, deadline)
    with state.batcher.admit(job):
        with stage_span(state.tracer, "fetch"):
            records = await _fetch(request, state)
            if request.collection not in state.gallery.metrics:
                await _check_query(query.image.sizes, request.collection, records, state)
            kept = [place for place, i in enumerate(request.gallery_ids) if i in records]
            gallery = [records[request.gallery_ids[place]].descriptors for place in kept]
            if request.global_scores is None:
                first_stage = await asyncio.to_thread(first_stage_scores, query.image, gallery)
            else:
                first_stage = np.array(request.global_scores, np.float32)[kept]
        fetched = time.monotonic()
        job.begin(query.image, gallery, first_stage)
        await state.batcher.score(job)

    span.set_attributes({"locore.windows": job.windows, "locore.tokens": job.tokens})
    ended = time.monotonic()
    seconds = {
        "decode": decoded - arrival,
        "fetch": fetched - extracted,
        "queue": max(0.0, ended - fetched - job.seconds),
        "inference": job.seconds,
        "total": ended - arrival,
    }
    for stage, value in seconds.items():
        STAGE_SECONDS.labels(stage).observe(value)
    seconds["extract"] = extracted - decoded
    return RerankResponse(
        id=correlation_id.get() or "",
        model=config.name,
        results=_results(request, kept, records, job),
        missing=[i for i in request.gallery_ids if i not in records],
        truncated=query.truncated,
        usage=Usage(images=len(kept), windows=job.windows, tokens=job.tokens),
        timings_ms=Timings(**{stage: round(1000 * s, 3) for stage, s in seconds.items()}),
    )


async def _fetch(request: RerankRequest, state: ServiceState) -> Mapping[str, GalleryRecord]:
    ids = request.gallery_ids
    records = await state.gallery.fetch(request.collection, ids)
    if not records or (len(records) < len(ids) and request.on_missing == "error"):
        raise GalleryIdsMissingError([i for i in ids if i not in records])
    _check_sizes(records, state.model.config)
    return records


def _check_sizes(records: Mapping[str, GalleryRecord], config: ModelConfig) -> None:
    """Images may have been registered when another checkpoint was served, or before a collection
    had sizes of its own: they have those that the checkpoint asks for, and each other's."""
    together, first = config.sizes, next(iter(records))
    whose = "the checkpoint" if together is not None else f"image {first!r}"
    for image_id, record in records.items():
        sizes = record.descriptors.sizes
        wrong = None if together is None else misfit(sizes, together)
        if wrong is not None:
            raise DescriptorDimMismatchError("gallery_ids", wrong, whose, id=image_id)
        together = sizes if together is None else joined(together, sizes)


async def _check_query(
    sizes: DescriptorSizes,
    collection: str,
    records: Mapping[str, GalleryRecord],
    state: ServiceState,
) -> None:
    """Raises DescriptorDimMismatchError where the query does not go with the collection."""
    of_images = (record.descriptors.sizes for record in records.values())
    expected = reduce(joined, of_images)
    if sizes.global_dim and expected.global_dim is None:
        # These images have no globals; others of the collection may.
        expected = await state.gallery.sizes(collection) or expected
    wrong = misfit(sizes, expected)
    if wrong is not None:
        field = f"query.{wrong.part}"
        raise DescriptorDimMismatchError(field, wrong, f"collection {collection!r}")


def _results(
    request: RerankRequest,
    kept: list[int],
    records: Mapping[str, GalleryRecord],
    job: Job,
) -> list[Result]:
    order, relevance = job.result()
    results = []
    for place, score in zip(order[: request.top_n], relevance, strict=False):
        index = kept[place]
        image_id = request.gallery_ids[index]
        metadata = records[image_id].metadata if request.return_metadata else None
        results.append(
            Result(id=image_id, index=index, relevance_score=float(score), metadata=metadata)
        )
    return results
