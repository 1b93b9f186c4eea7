"""The page itself, what it offers, and the sample's pictures."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import FileResponse
from starlette.staticfiles import StaticFiles

from model.config import ModelConfig
from service.api.errors import NotFoundError
from service.page import collection_images, search
from service.page.globals_cache import MAX_IMAGES
from service.page.page_images import sample_query
from service.page.parts import Answer, Parts, make_parts
from service.page.sample.sample_folders import COLLECTION
from service.request.access import reader
from service.settings import Settings
from service.state import State

STATIC = Path(__file__).with_name("static")

router = APIRouter(include_in_schema=False)
guarded = APIRouter(prefix="/page", include_in_schema=False, dependencies=[Depends(reader)])


def install_page(app: FastAPI, settings: Settings, config: ModelConfig) -> None:
    make_parts(app, settings, config)
    guarded_routers = (guarded, collection_images.router, search.router)
    for routes in (router, *guarded_routers):
        app.include_router(routes)


def _headers(settings: Settings) -> dict[str, str]:
    # `blob:` is for pictures in the browser's memory: a dropped one, and those fetched with a key.
    pictures = " ".join(["'self'", "blob:", *settings.thumbnail_origins])
    return {
        "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
        f"img-src {pictures}; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }


@router.get("/")
async def front(state: State) -> FileResponse:
    return FileResponse(STATIC / "index.html", headers=_headers(state.settings))


@router.get("/page/static/{name}")
async def static_file(name: str, request: Request) -> Response:
    return await static_response(STATIC, name, request)


@guarded.get("/about")
async def about(parts: Parts, state: State) -> Answer:
    """What the page offers here, and the sample's queries."""
    settings = state.settings
    sample, why = await parts.sample_or_reason()
    return {
        "model": parts.config.name,
        "sample": COLLECTION,
        "queries": [] if sample is None else [asdict(sample_query(i)) for i in sample.queries],
        "no_sample": why if sample is None else None,
        "max_upload_bytes": min(settings.max_payload_bytes, settings.max_image_bytes),
        "max_images": MAX_IMAGES,
    }


@guarded.get("/extraction")
async def extraction(state: State) -> Answer:
    """Why pictures cannot be extracted here, if so. May wait for the extractor to start."""
    return {"problem": await state.extraction.problem()}


@guarded.get("/sample/gallery/{image_id:path}")
async def gallery_picture(image_id: str, parts: Parts, request: Request) -> Response:
    if image_id not in (await parts.sample()).keypoints:
        raise NotFoundError("no such picture")
    return await static_response(parts.folders.gallery, image_id, request)


@guarded.get("/sample/queries/{image_id:path}")
async def query_picture(image_id: str, parts: Parts, request: Request) -> Response:
    if image_id not in (await parts.sample()).queries:
        raise NotFoundError("no such picture")
    return await static_response(parts.folders.queries, image_id, request)


async def static_response(folder: Path, name: str, request: Request) -> Response:
    """A file below `folder`, never one outside it; 304 where the browser has it."""
    files = StaticFiles(directory=folder, check_dir=False)
    response = await files.get_response(name, request.scope)
    response.headers["Cache-Control"] = "no-cache"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response
