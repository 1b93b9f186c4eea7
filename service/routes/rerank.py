"""POST /rerank: a better order of a shortlist."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce

import numpy as np
from asgi_correlation_id import correlation_id
from fastapi import APIRouter, Depends, Request
from numpy.typing import NDArray
from opentelemetry import trace

from locore_client.contract import RerankResponse, Result, Timings, Usage
from model.config import ModelConfig
from model.descriptors import DescriptorSizes, ImageDescriptors, first_stage_scores
from service.api.errors import (
    DeadlineExceededError,
    DescriptorDimMismatchError,
    GalleryIdsMissingError,
    NotFoundError,
)
from service.api.rerank_options import rerank_options
from service.api.schemas import QueryId, RerankRequest
from service.api.sizes import joined, misfit
from service.batching.job import Job
from service.body.decoding import Decoded, decode_query
from service.gallery.collection_metrics import in_metric
from service.gallery.keys import collection_of
from service.gallery.record import GalleryRecord
from service.request.access import reader
from service.request.arrival import arrival_of, incoming_request
from service.request.disconnect import unless_disconnected
from service.request.json_body import documented_body, documented_errors, parse
from service.request.pictures import describe_query
from service.state import ServiceState, State, accepting
from service.watch.metrics import STAGE_SECONDS
from service.watch.tracing import stage_span

router = APIRouter(tags=["re-rank"])

_INLINE_IMAGES = 200
"""For a list of this length the first stage takes as long as to hand it to another thread."""


@router.post(
    "/rerank",
    response_model=RerankResponse,
    dependencies=[Depends(reader), Depends(accepting)],
    openapi_extra=documented_body(RerankRequest),
    responses=documented_errors(400, 401, 403, 404, 413, 415, 422, 429, 500, 501, 503, 504),
)
async def rerank(request: Request, state: State) -> RerankResponse:
    """A better order of a shortlist, by the query's local descriptors or the query as a picture."""
    arrival, began = arrival_of(request), time.monotonic()
    with stage_span(state.tracer, "decode"):
        body, query = await parse(
            request,
            state,
            RerankRequest,
            lambda r: decode_query(r, state.model.config, state.settings.max_image_bytes),
            lambda body: incoming_request(request, body, state.batcher),
        )
    decoded = time.monotonic()
    try:
        async with asyncio.timeout(arrival + body.timeout_ms / 1000 - decoded):
            work = _rerank(body, query, state, arrival, began, decoded)
            return await unless_disconnected(request, work)
    except TimeoutError:
        raise DeadlineExceededError("timeout_ms ran out") from None


@dataclass(frozen=True, eq=False)
class _Images:
    """The query, and those images of the shortlist that are registered, in its order. `places`:
    their places in the shortlist; `missing`: ids that are not registered."""

    query: ImageDescriptors
    records: list[GalleryRecord]
    places: list[int]
    missing: list[str]


async def _rerank(
    request: RerankRequest,
    query: Decoded | bytes | QueryId,
    state: ServiceState,
    arrival: float,
    began: float,
    decoded: float,
) -> RerankResponse:
    """Seconds of `time.monotonic`: the `arrival` of the request's head, when decoding `began`, and
    when the body was `decoded`."""
    config = state.model.config
    deadline = arrival + request.timeout_ms / 1000
    extracted = decoded
    if isinstance(query, bytes):
        # Before the list has a place: it takes none from those that come with descriptors.
        with stage_span(state.tracer, "extract"):
            query = await describe_query(query, state, deadline)
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
            generation = await state.gallery.names.resolve(request.collection)
            images = await _fetch(request, query, generation, state)
            gallery = [record.descriptors for record in images.records]
            first_stage: NDArray[np.float32] | None
            if request.global_scores is not None:
                first_stage = np.array(request.global_scores, np.float32)[images.places]
            elif len(gallery) <= _INLINE_IMAGES:
                first_stage = first_stage_scores(images.query, gallery)
            else:
                first_stage = await asyncio.to_thread(first_stage_scores, images.query, gallery)
        fetched = time.monotonic()
        job.begin(images.query, gallery, first_stage)
        await state.batcher.score(job)

    span.set_attributes({"locore.windows": job.windows, "locore.tokens": job.tokens})
    ended = time.monotonic()
    seconds = {
        "decode": decoded - began,
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
        collection=collection_of(generation),
        results=_results(request, images, job),
        missing=images.missing,
        truncated=isinstance(query, Decoded) and query.truncated,
        usage=Usage(images=len(gallery), windows=job.windows, tokens=job.tokens),
        timings_ms=Timings(**{stage: round(1000 * s, 3) for stage, s in seconds.items()}),
    )


async def _fetch(
    request: RerankRequest, query: Decoded | QueryId, generation: str, state: ServiceState
) -> _Images:
    """In the collection's metric, where it has one.

    Raises GalleryIdsMissingError unless images may be missing, or where none is registered;
    NotFoundError for a stored query that is not; DescriptorDimMismatchError."""
    metric = state.gallery.metrics.get(collection_of(generation))
    ids = request.gallery_ids
    if isinstance(query, QueryId):
        stored = await state.gallery.fetch(generation, list(dict.fromkeys([query.id, *ids])))
        image = _stored_query(query.id, stored, generation, state.model.config)
        records = {i: stored[i] for i in ids if i in stored}
    else:
        image = query.image
        if metric is not None:
            owner = f"the metric of collection {collection_of(generation)!r}"
            image = await asyncio.to_thread(in_metric, image, metric, owner, "query")
        records = await state.gallery.fetch(generation, ids)
    missing = [i for i in ids if i not in records]
    if not records or (missing and request.on_missing == "error"):
        raise GalleryIdsMissingError(missing)
    sizes = _joint_sizes(records, state.model.config)
    if metric is None:
        await _check_query(image.sizes, generation, sizes, state)
    places = [place for place, image_id in enumerate(ids) if image_id in records]
    return _Images(image, [records[ids[place]] for place in places], places, missing)


def _stored_query(
    image_id: str, records: Mapping[str, GalleryRecord], generation: str, config: ModelConfig
) -> ImageDescriptors:
    record = records.get(image_id)
    if record is None:
        raise NotFoundError(
            f"query.id: no image {image_id!r} in collection {collection_of(generation)!r}",
            field="query.id",
            id=image_id,
        )
    return record.descriptors.strongest(config.descriptors_per_image)


def _joint_sizes(records: Mapping[str, GalleryRecord], config: ModelConfig) -> DescriptorSizes:
    """Of the images together. Raises DescriptorDimMismatchError unless all have the sizes of the
    checkpoint and of each other. They may not: images may have been registered with another
    checkpoint, or before collections had sizes."""
    first_by_sizes: dict[DescriptorSizes, str] = {}
    for image_id, record in records.items():
        first_by_sizes.setdefault(record.descriptors.sizes, image_id)
    first = next(iter(records))
    owner = "the checkpoint" if config.sizes is not None else f"image {first!r}"
    expected = config.sizes or records[first].descriptors.sizes
    for sizes, image_id in first_by_sizes.items():
        wrong = misfit(sizes, expected)
        if wrong is not None:
            raise DescriptorDimMismatchError("gallery_ids", wrong, owner, id=image_id)
        expected = joined(expected, sizes)
    return reduce(joined, first_by_sizes)


async def _check_query(
    sizes: DescriptorSizes, generation: str, expected: DescriptorSizes, state: ServiceState
) -> None:
    """`expected`: the sizes of the list's images. Raises DescriptorDimMismatchError where the query
    does not fit the collection."""
    if sizes.global_dim and expected.global_dim is None:
        # These images have no globals; others of the collection may.
        expected = await state.gallery.sizes(generation) or expected
    wrong = misfit(sizes, expected)
    if wrong is not None:
        field = f"query.{wrong.part}"
        owner = f"collection {collection_of(generation)!r}"
        raise DescriptorDimMismatchError(field, wrong, owner)


def _results(request: RerankRequest, images: _Images, job: Job) -> list[Result]:
    order, relevance = job.result()
    min_score, max_results = request.min_score, request.top_n or len(order)
    results: list[Result] = []
    for place, score in zip(order, relevance, strict=True):
        if len(results) == max_results:
            break
        if min_score is not None and score < min_score:
            continue
        index = images.places[place]
        metadata = images.records[place].metadata if request.return_metadata else None
        results.append(
            Result(
                id=request.gallery_ids[index],
                index=index,
                relevance_score=float(score),
                metadata=metadata,
            )
        )
    return results
