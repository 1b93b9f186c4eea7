"""Images of a collection: page by page, one as a query, and their thumbnails."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Depends, Query, Request, Response
from numpy.typing import NDArray

from locore_client import packed_image
from locore_client.packing import pack
from model.descriptors import ImageDescriptors
from service.api.errors import NotFoundError
from service.api.schemas import Collection, ImageId
from service.gallery.keys import collection_of
from service.page.page_images import page_images, sample_query
from service.page.parts import Answer, PageParts, Parts
from service.page.sample.sample_folders import COLLECTION
from service.request.access import reader
from service.state import ServiceState, State

router = APIRouter(prefix="/page", include_in_schema=False, dependencies=[Depends(reader)])

InCollection = Annotated[Collection, Query()]
Id = Annotated[ImageId, Query()]

_MAX_IMAGES = 200


@router.get("/images")
async def images(
    state: State,
    parts: Parts,
    collection: InCollection,
    after: Annotated[ImageId | None, Query()] = None,
    start: Annotated[ImageId | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=_MAX_IMAGES)] = 60,
) -> Answer:
    """Images by their ids: those behind `after`, or from `start` on; neither needs to exist. Pass
    `next` as `after` for more."""
    generation = await state.gallery.names.resolve(collection)
    page = await state.gallery.page(generation, limit, _before(start) if start else after)
    return {
        "collection": page.collection,
        "count": page.count,
        "has_globals": bool(page.sizes and page.sizes.global_dim),
        "images": [asdict(i) for i in await page_images(state, parts, generation, page.ids)],
        "next": page.next_cursor,
    }


@router.get("/image")
async def image(state: State, parts: Parts, collection: InCollection, id: Id) -> Answer:  # noqa: A002
    """An image as a query: what /rerank takes, and where its locals lie, if that is known."""
    generation = await state.gallery.names.resolve(collection)
    record = await state.gallery.get(generation, id)
    page = await page_images(state, parts, generation, [id])
    if record is None or not page:
        raise NotFoundError(f"no image {id!r} in collection {collection!r}")
    keypoints = await known_keypoints(state, parts, generation, id, record.descriptors.count)
    return asdict(page[0]) | described(record.descriptors, keypoints)


@router.get("/sample/query")
async def query(parts: Parts, id: Id) -> Answer:  # noqa: A002
    """A query of the sample, which is none of its collection's images, as `image` answers one."""
    placed = (await parts.sample()).queries.get(id)
    if placed is None:
        raise NotFoundError(f"no query {id!r} in the sample")
    return asdict(sample_query(id)) | described(placed.descriptors, placed.keypoints)


@router.get("/thumbnail")
async def thumbnail(request: Request, state: State, collection: InCollection, id: Id) -> Response:  # noqa: A002
    generation = await state.gallery.names.resolve(collection)
    stored_thumbnail = await state.gallery.thumbnails.get(generation, id)
    if stored_thumbnail is None:
        raise NotFoundError(f"no thumbnail of image {id!r} in collection {collection!r}")
    tag = f'"{hashlib.blake2b(stored_thumbnail.webp, digest_size=16).hexdigest()}"'
    headers = {
        "Cache-Control": "private, no-cache",
        "ETag": tag,
        "X-Content-Type-Options": "nosniff",
    }
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(stored_thumbnail.webp, media_type="image/webp", headers=headers)


async def known_keypoints(
    state: ServiceState, parts: PageParts, generation: str, image_id: str, count: int
) -> NDArray[np.float32] | None:
    """(count, 2): the keypoints of an image's locals; None if they are unknown, for example for
    merged locals."""
    keypoints = None
    if collection_of(generation) == COLLECTION:
        sample, _ = await parts.sample_or_reason()
        keypoints = None if sample is None else sample.keypoints.get(image_id)
    if keypoints is None:
        thumbnail = await state.gallery.thumbnails.get(generation, image_id)
        keypoints = None if thumbnail is None else thumbnail.keypoints
    return keypoints if keypoints is not None and len(keypoints) == count else None


def _before(start: str) -> str:
    """The greatest possible id below `start`: ids are ASCII."""
    return f"{start[:-1]}{chr(ord(start[-1]) - 1)}\x7f"


def described(image: ImageDescriptors, keypoints: NDArray[np.float32] | None) -> Answer:
    placed = None if keypoints is None else pack(keypoints)
    return {"query": packed_image(image), "keypoints": placed}
