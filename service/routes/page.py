"""The page at `/`, and what it asks for under /page/: the sample gallery, a first stage over it,
extraction of an image that a person drops, and the matches behind a result.

None of it is part of the HTTP contract: docs/page.md tells of it.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import structlog
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.staticfiles import StaticFiles

from locore_client import packed_image
from locore_client.packing import InvalidArrayError, pack
from model.config import ModelConfig
from model.descriptor_file import DescriptorFileError
from model.descriptors import ImageDescriptors
from model.extraction.pixels import FORMATS
from service.access import reader
from service.arrays import Matrix, unpack
from service.arrival import arrival_of
from service.decoding import decode_image
from service.errors import DescriptorDimMismatchError, NotFoundError, UnprocessableError
from service.pictures import extract_picture
from service.routes.body import parse
from service.sample_folders import COLLECTION, SampleFolders
from service.sample_search import PlacedImage, Sample, load_sample, mutual_matches
from service.schemas import MAX_SHORTLIST, ImageId, QueryDescriptors
from service.settings import Settings
from service.sizes import misfit
from service.state import State, accepting

log = structlog.get_logger(__name__)

_EXTRACT_SECONDS = 60.0
STATIC = Path(__file__).parents[1] / "page"
# `blob:` is for the picture that a person dropped, which the browser itself holds.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}

router = APIRouter(include_in_schema=False)
guarded = APIRouter(prefix="/page", include_in_schema=False, dependencies=[Depends(reader)])


class ShortlistRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    query: QueryDescriptors
    top: int = Field(50, ge=1, le=MAX_SHORTLIST)


class MatchesRequest(BaseModel):
    """`keypoints` (n, 2): of the query's rows."""

    model_config = ConfigDict(extra="forbid")

    query: QueryDescriptors
    keypoints: Matrix
    id: ImageId


@dataclass(eq=False)
class PageParts:
    """What the page's routes share beside the service's state. The sample is read again when its
    file has changed: it may be made while the service runs."""

    folders: SampleFolders
    config: ModelConfig
    _read: tuple[int, Sample | None] | None = None

    def load(self) -> Sample | None:
        """None where there is none. Raises DescriptorFileError."""
        try:
            version = self.folders.request.stat().st_mtime_ns
        except FileNotFoundError:
            return None
        if self._read is None or self._read[0] != version:
            self._read = version, load_sample(self.folders, self.config.extractor.name)
        return self._read[1]

    async def sample(self) -> Sample:
        """Raises NotFoundError."""
        sample, why = await self.sample_or_why()
        if sample is None:
            raise NotFoundError(why, code="no_sample")
        return sample

    async def sample_or_why(self) -> tuple[Sample | None, str]:
        try:
            found = await asyncio.to_thread(self.load)
        except DescriptorFileError as error:
            # The message has a path, which is for the log only.
            log.warning("sample_unreadable", why=str(error))
            return None, "the sample gallery on disk does not go with this checkpoint"
        return found, "there is no sample gallery here"


def install_page(app: FastAPI, settings: Settings, config: ModelConfig) -> None:
    app.state.page = PageParts(
        SampleFolders(settings.data_dir / "sample"),
        config,
    )
    app.include_router(router)
    app.include_router(guarded)


async def page_parts(request: Request) -> PageParts:
    parts: PageParts = request.app.state.page
    return parts


Parts = Annotated[PageParts, Depends(page_parts)]


@router.get("/")
async def front() -> FileResponse:
    return FileResponse(STATIC / "index.html", headers=_HEADERS)


@router.get("/page/static/{name}")
async def static_file(name: str, request: Request) -> Response:
    return await static_response(STATIC, name, request)


@guarded.get("/about")
async def about(parts: Parts, state: State) -> dict[str, Any]:
    """What can be done here, and the sample's queries with the gallery views that are right."""
    sample, why = await parts.sample_or_why()
    problem = await state.extraction.problem()
    queries = [] if sample is None else list(sample.queries)
    return {
        "model": parts.config.name,
        "collection": COLLECTION,
        "images": 0 if sample is None else len(sample.gallery),
        "no_sample": why if sample is None else None,
        "no_extraction": problem,
        "formats": list(FORMATS),
        "max_upload_bytes": state.settings.max_payload_bytes,
        "queries": [{"id": i, "relevant": sample.relevant(i)} for i in queries if sample],
    }


@guarded.get("/sample/gallery/{image_id:path}")
async def gallery_picture(image_id: str, parts: Parts, request: Request) -> Response:
    if image_id not in (await parts.sample()).gallery:
        raise NotFoundError("no such picture")
    return await static_response(parts.folders.gallery, image_id, request)


@guarded.get("/sample/queries/{image_id:path}")
async def query_picture(image_id: str, parts: Parts, request: Request) -> Response:
    if image_id not in (await parts.sample()).queries:
        raise NotFoundError("no such picture")
    return await static_response(parts.folders.queries, image_id, request)


@guarded.get("/sample/descriptors/{image_id:path}")
async def query_descriptors(image_id: str, parts: Parts) -> dict[str, Any]:
    """A sample query as /page/extract would answer it."""
    found = (await parts.sample()).queries.get(image_id)
    if found is None:
        raise NotFoundError("no such query")
    return _described(found)


@guarded.post("/extract", dependencies=[Depends(accepting)])
async def extract(request: Request, state: State) -> dict[str, Any]:
    """Descriptors and keypoints of the image that is the body."""
    async with state.intake.body(request, state.settings.max_payload_bytes) as body:
        started = time.perf_counter()
        done = await extract_picture(body, state.extraction, arrival_of(request) + _EXTRACT_SECONDS)
    width, height = done.size
    placed = PlacedImage(done.features.for_reranking(), done.features.keypoints)
    return _described(placed) | {"width": width, "height": height, "ms": _ms_since(started)}


@guarded.post("/shortlist")
async def shortlist(request: Request, state: State, parts: Parts) -> dict[str, Any]:
    """The first stage: the sample's images nearest to the query by their globals."""
    sample, config = await parts.sample(), parts.config
    asked, query = await parse(
        request, state, ShortlistRequest, lambda r: _query(r.query, config, sample)
    )
    if query.global_ is None:
        message = "query.global: the first stage needs one"
        raise UnprocessableError(message, field="query.global")
    started = time.perf_counter()
    found = await asyncio.to_thread(sample.shortlist, query, asked.top)
    return {
        "collection": COLLECTION,
        "images": len(sample.gallery),
        "results": [{"id": image_id, "score": round(score, 6)} for image_id, score in found],
        "ms": _ms_since(started),
    }


@guarded.post("/matches")
async def matches(request: Request, state: State, parts: Parts) -> dict[str, Any]:
    """Which local descriptors of the query and of a gallery image are each other's nearest."""
    sample, config = await parts.sample(), parts.config
    asked, query = await parse(
        request, state, MatchesRequest, lambda r: _with_keypoints(r, config, sample)
    )
    gallery = sample.gallery.get(asked.id)
    if gallery is None:
        raise NotFoundError(f"no image {asked.id!r} in the sample gallery", id=asked.id)
    found = await asyncio.to_thread(mutual_matches, query.descriptors, gallery.descriptors)
    return {
        "matches": [
            {
                "query": _point(query, match.query_row),
                "gallery": _point(gallery, match.gallery_row),
                "cosine": round(match.cosine, 4),
            }
            for match in found
        ]
    }


def _query(query: QueryDescriptors, config: ModelConfig, sample: Sample) -> ImageDescriptors:
    image: ImageDescriptors = decode_image(query, config, "query").image
    wrong = misfit(image.sizes, sample.sizes)
    if wrong is not None:
        raise DescriptorDimMismatchError(f"query.{wrong.part}", wrong, "the sample gallery")
    return image


def _with_keypoints(request: MatchesRequest, config: ModelConfig, sample: Sample) -> PlacedImage:
    image = _query(request.query, config, sample)
    try:
        keypoints = unpack(request.keypoints, 2)
    except InvalidArrayError as error:
        raise UnprocessableError(f"keypoints: {error}", field="keypoints") from None
    fits = keypoints.shape[1] == 2 and len(keypoints) >= image.count
    if not fits or not np.isfinite(keypoints).all():
        message = f"keypoints: x and y for each of the {image.count} rows are asked for"
        raise UnprocessableError(message, field="keypoints")
    return PlacedImage(image, keypoints[: image.count])


def _described(image: PlacedImage) -> dict[str, Any]:
    return {"query": packed_image(image.descriptors), "keypoints": pack(image.keypoints)}


def _point(image: PlacedImage, row: int) -> list[float]:
    return [round(float(value), 4) for value in image.keypoints[row]]


async def static_response(folder: Path, name: str, request: Request) -> Response:
    """A file below `folder`, never one outside it; 304 where the browser has it."""
    files = StaticFiles(directory=folder, check_dir=False)
    response = await files.get_response(name, request.scope)
    response.headers["Cache-Control"] = "no-cache"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def _ms_since(started: float) -> float:
    return round(1000 * (time.perf_counter() - started), 3)
