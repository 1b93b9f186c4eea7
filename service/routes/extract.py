"""POST /extract: descriptors of a picture."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request

from locore_client.contract import MAX_TIMEOUT_MS, ExtractResponse, QueryArrays
from locore_client.packing import pack
from service.api.errors import DeadlineExceededError, MediaTypeError
from service.api.schemas import ExtractRequest
from service.body.decoding import check_picture
from service.body.intake import JSON, content_type
from service.picture_extraction.messages import ExtractedPicture
from service.request.access import reader
from service.request.arrival import arrival_of
from service.request.disconnect import unless_disconnected
from service.request.json_body import documented_body, documented_errors, parse
from service.request.pictures import extract_picture
from service.routes.info import extractor_answer
from service.state import ServiceState, State, accepting

router = APIRouter(tags=["extract"])

_PICTURES = "image/"
_BODY = documented_body(ExtractRequest)
_BODY["requestBody"]["content"]["image/*"] = {"schema": {"type": "string", "format": "binary"}}


@router.post(
    "/extract",
    response_model=ExtractResponse,
    dependencies=[Depends(reader), Depends(accepting)],
    openapi_extra=_BODY,
    responses=documented_errors(400, 401, 403, 413, 415, 422, 429, 500, 501, 503, 504),
)
async def extract(
    request: Request,
    state: State,
    timeout_ms: Annotated[int, Query(ge=1, le=MAX_TIMEOUT_MS)] = 10_000,
) -> ExtractResponse:
    """Descriptors of a picture, which is the body, or in it as base64."""
    arrival = arrival_of(request)
    picture = await _picture(request, state)
    started = time.monotonic()
    deadline = arrival + timeout_ms / 1000
    try:
        async with asyncio.timeout(deadline - started):
            work = extract_picture(picture, state.extraction, deadline)
            extracted = await unless_disconnected(request, work)
    except TimeoutError:
        raise DeadlineExceededError("timeout_ms ran out") from None
    ms = round(1000 * (time.monotonic() - started), 3)
    return await asyncio.to_thread(_answer, extracted, state, ms)


async def _picture(request: Request, state: ServiceState) -> bytes:
    settings = state.settings
    max_bytes = settings.max_image_bytes
    kind = content_type(request)
    if kind.startswith(_PICTURES):
        limit = settings.max_payload_bytes
        data = await state.intake.parsed(request, limit, lambda body: body)
        check_picture(data, max_bytes, "body")
        return data
    if kind != JSON:
        message = f"Content-Type: {kind[:100]}, but {_PICTURES}* or {JSON} is required"
        raise MediaTypeError(message)
    body, _ = await parse(
        request, state, ExtractRequest, lambda r: check_picture(r.image.data, max_bytes, "image")
    )
    return body.image.data


def _answer(extracted: ExtractedPicture, state: ServiceState, ms: float) -> ExtractResponse:
    features = extracted.features
    width, height = extracted.size
    query = QueryArrays(
        descriptors=pack(features.descriptors),
        scales=features.scales.tolist(),
        global_=pack(features.global_),
    )
    return ExtractResponse(
        extractor=extractor_answer(state.settings, state.model.config, state.extraction.extractor),
        query=query,
        keypoints=pack(features.keypoints),
        width=width,
        height=height,
        ms=ms,
    )
