"""/gallery: register, list, show and delete images, one or all."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from opentelemetry import trace

from locore_client.contract import Emptied, GalleryPage, RegisterResponse, StoredArrays, StoredImage
from locore_client.packing import pack
from service.api.errors import NotFoundError
from service.api.schemas import Collection, ImageId, RegisterRequest
from service.body.decoding import decode_registration
from service.gallery.keys import collection_of
from service.gallery.record import GalleryRecord
from service.gallery.thumbnail_store import Thumbnail
from service.request.access import reader, writer
from service.request.disconnect import unless_disconnected
from service.request.json_body import documented_body, documented_errors, parse
from service.request.pictures import describe_images
from service.routes.cursor import decode_cursor, encode_cursor
from service.routes.info import sizes_answer
from service.state import State, accepting
from service.watch.tracing import stage_span

router = APIRouter(prefix="/gallery", tags=["gallery"], dependencies=[Depends(reader)])

InCollection = Annotated[Collection, Query()]


@router.post(
    "",
    response_model=RegisterResponse,
    dependencies=[Depends(writer), Depends(accepting)],
    openapi_extra=documented_body(RegisterRequest),
    responses=documented_errors(400, 401, 403, 413, 415, 422, 429, 500, 501, 503, 507),
)
async def register(request: Request, state: State) -> RegisterResponse:
    """Register images, by their descriptors or as pictures, all or none; an id that is there
    already is replaced."""
    with stage_span(state.tracer, "decode"):
        max_image_bytes = state.settings.max_image_bytes
        body, (images, truncated) = await parse(
            request,
            state,
            RegisterRequest,
            lambda r: decode_registration(r, state.model.config, max_image_bytes),
        )
    trace.get_current_span().set_attribute("locore.images", len(images))
    records = {i: one for i, one in images.items() if isinstance(one, GalleryRecord)}
    thumbnails: dict[str, Thumbnail] = {}
    if len(records) < len(images):
        with stage_span(state.tracer, "extract"):
            work = describe_images(images, state)
            records, thumbnails = await unless_disconnected(request, work)
    with stage_span(state.tracer, "store"):
        registration = await state.gallery.register(
            body.collection, records, body.ttl_seconds, thumbnails
        )
    return RegisterResponse(
        registered=registration.registered, replaced=registration.replaced, truncated=truncated
    )


@router.delete(
    "",
    dependencies=[Depends(writer)],
    responses=documented_errors(401, 403, 404, 422, 500, 503),
)
async def empty(state: State, collection: InCollection) -> Emptied:
    """Forget all images of a collection, in one step."""
    with stage_span(state.tracer, "store"):
        emptied, deleted = await state.gallery.names.empty(collection)
    return Emptied(collection=emptied, deleted=deleted)


@router.get("", response_model=GalleryPage, responses=documented_errors(401, 422, 500, 503))
async def list_images(
    state: State,
    collection: InCollection = "default",
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
    cursor: str | None = None,
) -> GalleryPage:
    """The ids of a collection, in order, `limit` at a time, and the sizes of its descriptors."""
    after = decode_cursor(cursor)
    with stage_span(state.tracer, "store"):
        generation = await state.gallery.names.resolve(collection)
        page = await state.gallery.page(generation, limit, after)
    return GalleryPage(
        collection=page.collection,
        count=page.count,
        ids=page.ids,
        next_cursor=encode_cursor(page.next_cursor),
        sizes=sizes_answer(page.sizes),
    )


@router.get(
    "/{image_id:path}",
    response_model=StoredImage,
    responses=documented_errors(401, 404, 422, 500, 503),
)
async def get_image(
    image_id: ImageId,
    state: State,
    collection: InCollection = "default",
    include: Literal["descriptors"] | None = None,
) -> StoredImage:
    """What is stored of an image; its arrays, packed, with `include=descriptors`."""
    with stage_span(state.tracer, "store"):
        generation = await state.gallery.names.resolve(collection)
        record = await state.gallery.get(generation, image_id)
    if record is None:
        raise NotFoundError(f"no image {image_id!r} in collection {collection!r}")
    image = record.descriptors
    global_ = image.global_
    arrays = None
    if include:
        arrays = StoredArrays(
            descriptors=pack(image.locals), global_=None if global_ is None else pack(global_)
        )
    return StoredImage(
        id=image_id,
        collection=collection_of(generation),
        count=image.count,
        dimension=image.locals.shape[1],
        dtype=record.dtype or str(image.locals.dtype),
        scales=image.scales.tolist(),
        mask=None if image.padding is None else image.padding.astype(int).tolist(),
        global_dimension=None if global_ is None else len(global_),
        metadata=record.metadata,
        arrays=arrays,
    )


@router.delete(
    "/{image_id:path}",
    status_code=204,
    dependencies=[Depends(writer)],
    responses=documented_errors(401, 403, 404, 422, 500, 503),
)
async def delete_image(
    image_id: ImageId, state: State, collection: InCollection = "default"
) -> Response:
    """Forget an image."""
    with stage_span(state.tracer, "store"):
        generation = await state.gallery.names.resolve(collection)
        deleted = await state.gallery.delete(generation, image_id)
    if not deleted:
        raise NotFoundError(f"no image {image_id!r} in collection {collection!r}")
    return Response(status_code=204)
