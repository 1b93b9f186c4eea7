"""Searches: a first stage, and the matches of a result."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict

import numpy as np
from fastapi import APIRouter, Depends, Request
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from locore_client.packing import InvalidArrayError
from model.descriptors import ImageDescriptors
from model.matches import mutual_matches
from service.api.arrays import Matrix, unpack
from service.api.errors import DescriptorDimMismatchError, NotFoundError, UnprocessableError
from service.api.schemas import MAX_SHORTLIST, Collection, ImageId, QueryDescriptors
from service.api.sizes import misfit
from service.body.decoding import decode_image
from service.gallery.keys import collection_of
from service.page.collection_images import known_keypoints
from service.page.page_images import page_images
from service.page.parts import Answer, PageParts, Parts
from service.request.access import reader
from service.request.json_body import parse
from service.state import ServiceState, State

router = APIRouter(prefix="/page", include_in_schema=False, dependencies=[Depends(reader)])


class ShortlistRequest(BaseModel):
    """`without`: an image to leave out, such as the query itself."""

    model_config = ConfigDict(extra="forbid")

    collection: Collection
    query: QueryDescriptors
    top: int = Field(50, ge=1, le=MAX_SHORTLIST)
    without: ImageId | None = None


class MatchesRequest(BaseModel):
    """`keypoints` (n, 2): of the query's rows, if they are known."""

    model_config = ConfigDict(extra="forbid")

    collection: Collection
    query: QueryDescriptors
    keypoints: Matrix | None = None
    id: ImageId


@router.post("/shortlist")
async def shortlist(request: Request, state: State, parts: Parts) -> Answer:
    """The first stage: the collection's images nearest to the query by globals, or in the order of
    ids if there are no globals (`order`)."""
    body, query = await parse(
        request, state, ShortlistRequest, lambda r: decode_image(r.query, parts.config, "query")
    )
    generation = await state.gallery.names.resolve(body.collection)
    collection = collection_of(generation)
    sizes = await state.gallery.sizes(generation)
    if sizes is None:
        raise NotFoundError(f"no image in collection {collection!r}")
    image: ImageDescriptors = query.image
    wrong = misfit(image.sizes, sizes)
    if wrong is not None:
        raise DescriptorDimMismatchError(f"query.{wrong.part}", wrong, f"collection {collection!r}")
    by_globals = bool(sizes.global_dim) and image.global_ is not None
    find = _by_globals if by_globals else _by_ids
    started = time.perf_counter()
    answer, scores = await find(state, parts, generation, body, image)
    ms = _ms_since(started)
    images = await page_images(state, parts, generation, list(scores))
    results = [asdict(one) | {"score": scores[one.id]} for one in images]
    return answer | {"collection": collection, "results": results, "ms": ms}


_Scores = dict[str, float | None]


async def _by_globals(
    state: ServiceState,
    parts: PageParts,
    generation: str,
    body: ShortlistRequest,
    query: ImageDescriptors,
) -> tuple[Answer, _Scores]:
    """Raises UnprocessableError for a collection that is too large."""
    assert query.global_ is not None  # noqa: S101
    globals_ = await parts.globals(state).get(generation)
    matrix = globals_.matrix
    if not len(matrix.ids) or matrix.dim != len(query.global_):
        return await _by_ids(state, parts, generation, body, query)
    nearest = await asyncio.to_thread(matrix.nearest, query.global_, body.top, body.without)
    about = {"order": "globals", "images": globals_.count, "searched": len(matrix.ids)}
    return about, {image_id: round(cosine, 6) for image_id, cosine in nearest}


async def _by_ids(
    state: ServiceState,
    _parts: PageParts,
    generation: str,
    body: ShortlistRequest,
    _query: ImageDescriptors,
) -> tuple[Answer, _Scores]:
    page = await state.gallery.page(generation, body.top + 1, None)
    ids = [image_id for image_id in page.ids if image_id != body.without][: body.top]
    about = {"order": "ids", "images": page.count, "searched": 0}
    return about, dict.fromkeys(ids)


@router.post("/matches")
async def matches(request: Request, state: State, parts: Parts) -> Answer:
    """The local descriptors of the query and a gallery image that are each other's nearest. Places
    in the pictures are null if unknown."""
    body, (query, keypoints) = await parse(
        request, state, MatchesRequest, lambda r: _with_keypoints(r, parts)
    )
    generation = await state.gallery.names.resolve(body.collection)
    record = await state.gallery.get(generation, body.id)
    if record is None:
        message = f"no image {body.id!r} in collection {body.collection!r}"
        raise NotFoundError(message, id=body.id)
    image = record.descriptors
    wrong = misfit(query.sizes, image.sizes)
    if wrong is not None and wrong.part == "descriptors":
        raise DescriptorDimMismatchError("query.descriptors", wrong, f"image {body.id!r}")
    places = await known_keypoints(state, parts, generation, body.id, image.count)
    pairs = await asyncio.to_thread(mutual_matches, query, image)
    return {
        "matches": [
            {
                "query": _point(keypoints, match.query_row),
                "gallery": _point(places, match.gallery_row),
                "cosine": round(match.cosine, 4),
            }
            for match in pairs
        ]
    }


def _with_keypoints(
    request: MatchesRequest, parts: PageParts
) -> tuple[ImageDescriptors, NDArray[np.floating] | None]:
    image = decode_image(request.query, parts.config, "query").image
    if request.keypoints is None:
        return image, None
    try:
        keypoints = unpack(request.keypoints, 2)
    except InvalidArrayError as error:
        raise UnprocessableError(f"keypoints: {error}", field="keypoints") from None
    fits = keypoints.shape[1] == 2 and len(keypoints) >= image.count
    if not fits or not np.isfinite(keypoints).all():
        message = f"keypoints: x and y for each of the {image.count} rows are required"
        raise UnprocessableError(message, field="keypoints")
    return image, keypoints[: image.count]


def _point(keypoints: NDArray[np.floating] | None, row: int) -> list[float] | None:
    return None if keypoints is None else [round(float(value), 4) for value in keypoints[row]]


def _ms_since(started: float) -> float:
    return round(1000 * (time.perf_counter() - started), 3)
