"""Describes a request's pictures one by one, and checks the descriptors like any others."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from service.api.errors import TooLargeError, UnprocessableError
from service.body.decoding import Decoded, Undescribed, decode_extracted
from service.gallery.record import GalleryRecord
from service.gallery.thumbnail_store import Thumbnail
from service.picture_extraction.messages import ExtractedPicture
from service.picture_extraction.picture_queue import ExtractionQueue
from service.state import ServiceState


async def extract_picture(
    picture: bytes, queue: ExtractionQueue, deadline: float, field: str = "image"
) -> ExtractedPicture:
    """Extracts the picture of a request with one. Raises what ExtractionQueue raises, with
    `field`."""
    with queue.place(len(picture), deadline):
        return await _extracted(picture, queue, field)


async def describe_query(picture: bytes, state: ServiceState, deadline: float) -> Decoded:
    """Raises what ExtractionQueue and `decode_extracted` raise."""
    extracted = await extract_picture(picture, state.extraction, deadline, "query.image")
    return await _decoded(extracted, state, "query")


async def describe_images(
    images: Mapping[str, GalleryRecord | Undescribed], state: ServiceState
) -> tuple[dict[str, GalleryRecord], dict[str, Thumbnail]]:
    """Records of all images, in their order, and thumbnails of those sent as pictures, if the
    service stores any. Raises what ExtractionQueue and `decode_extracted` raise, with the image."""
    size = sum(len(one.picture) for one in images.values() if isinstance(one, Undescribed))
    records: dict[str, GalleryRecord] = {}
    thumbnails: dict[str, Thumbnail] = {}
    with_thumbnails = state.settings.thumbnail_bytes > 0
    with state.extraction.place(size):
        for image_id, one in images.items():
            if isinstance(one, Undescribed):
                field = f"{one.where}.image"
                extracted = await _extracted(
                    one.picture, state.extraction, field, thumbnail=with_thumbnails, id=image_id
                )
                decoded = await _decoded(extracted, state, one.where, id=image_id)
                records[image_id] = GalleryRecord(decoded.image, one.metadata)
                if extracted.thumbnail is not None:
                    keypoints = extracted.features.keypoints
                    thumbnails[image_id] = Thumbnail(extracted.thumbnail, keypoints)
            else:
                records[image_id] = one
    return records, thumbnails


async def _extracted(
    picture: bytes, queue: ExtractionQueue, field: str, *, thumbnail: bool = False, **details: str
) -> ExtractedPicture:
    try:
        return await queue.extract(picture, thumbnail=thumbnail)
    except (UnprocessableError, TooLargeError) as error:
        all_details = {**error.details, **details, "field": field}
        raise type(error)(f"{field}: {error}", code=error.code, **all_details) from None


async def _decoded(
    extracted: ExtractedPicture, state: ServiceState, where: str, **details: str
) -> Decoded:
    config = state.model.config
    return await asyncio.to_thread(decode_extracted, extracted.features, config, where, **details)
