"""/collections and /aliases: list, drop and name collections."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from locore_client.contract import Alias, AliasMove, AliasPage, CollectionPage, CollectionSummary
from service.api.schemas import AliasRequest, Collection
from service.gallery.names import Summary
from service.request.access import reader, writer
from service.request.json_body import documented_body, documented_errors, parse
from service.routes.cursor import decode_cursor, encode_cursor
from service.routes.info import sizes_answer
from service.state import State
from service.watch.tracing import stage_span

router = APIRouter(tags=["collections"], dependencies=[Depends(reader)])

Limit = Annotated[int, Query(ge=1, le=1000)]


@router.get("/collections", responses=documented_errors(401, 422, 500, 503))
async def list_collections(
    state: State, limit: Limit = 100, cursor: str | None = None
) -> CollectionPage:
    """Collections by name: what they have, and the aliases that point at them."""
    with stage_span(state.tracer, "store"):
        summaries, after = await state.gallery.names.collections(limit, decode_cursor(cursor))
    return CollectionPage(
        collections=[*map(_summary_answer, summaries)], next_cursor=encode_cursor(after)
    )


@router.get("/collections/{name:path}", responses=documented_errors(401, 404, 422, 500, 503))
async def get_collection(name: Collection, state: State) -> CollectionSummary:
    """One collection, by its name or an alias."""
    with stage_span(state.tracer, "store"):
        return _summary_answer(await state.gallery.names.collection(name))


@router.delete(
    "/collections/{name:path}",
    status_code=204,
    dependencies=[Depends(writer)],
    responses=documented_errors(401, 403, 404, 409, 422, 500, 503),
)
async def drop_collection(name: Collection, state: State) -> Response:
    """Forget a collection and its images, in one step; not while an alias points at it."""
    with stage_span(state.tracer, "store"):
        await state.gallery.names.drop(name)
    return Response(status_code=204)


@router.get("/aliases", responses=documented_errors(401, 422, 500, 503))
async def list_aliases(state: State, limit: Limit = 100, cursor: str | None = None) -> AliasPage:
    """Aliases by name, and the collections that they point at."""
    with stage_span(state.tracer, "store"):
        pairs, after = await state.gallery.names.aliases(limit, decode_cursor(cursor))
    return AliasPage(
        aliases=[Alias(alias=alias, collection=collection) for alias, collection in pairs],
        next_cursor=encode_cursor(after),
    )


@router.put(
    "/aliases/{alias:path}",
    response_model=AliasMove,
    dependencies=[Depends(writer)],
    openapi_extra=documented_body(AliasRequest),
    responses=documented_errors(400, 401, 403, 404, 409, 413, 415, 422, 429, 500, 503, 507),
)
async def point_alias(alias: Collection, request: Request, state: State) -> AliasMove:
    """Make an alias, or move it to another collection, in one step."""
    body, _ = await parse(request, state, AliasRequest, lambda _: None)
    with stage_span(state.tracer, "store"):
        collection, previous = await state.gallery.names.point(alias, body.collection)
    return AliasMove(alias=alias, collection=collection, previous=previous)


@router.delete(
    "/aliases/{alias:path}",
    status_code=204,
    dependencies=[Depends(writer)],
    responses=documented_errors(401, 403, 404, 422, 500, 503),
)
async def delete_alias(alias: Collection, state: State) -> Response:
    """Forget an alias; its collection stays."""
    with stage_span(state.tracer, "store"):
        await state.gallery.names.unpoint(alias)
    return Response(status_code=204)


def _summary_answer(summary: Summary) -> CollectionSummary:
    return CollectionSummary(
        name=summary.name,
        count=summary.count,
        sizes=sizes_answer(summary.sizes),
        bytes=summary.size,
        aliases=summary.aliases,
    )
