"""An image of a collection on the page: its label and its picture."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from service.gallery.keys import collection_of
from service.page.parts import PageParts
from service.page.sample.sample_folders import COLLECTION
from service.page.sample.sample_images import Sample, subject_of
from service.state import ServiceState


@dataclass(frozen=True)
class PageImage:
    """`label`: what it shows, None if unknown; `picture`: a path of the page or another site's URL,
    None if there is none."""

    id: str
    label: str | None
    picture: str | None


async def page_images(
    state: ServiceState, parts: PageParts, generation: str, ids: Sequence[str]
) -> list[PageImage]:
    """Those of `ids` that are registered, in this order."""
    records = await state.gallery.fetch(generation, ids) if ids else {}
    collection = collection_of(generation)
    registered = [image_id for image_id in ids if image_id in records]
    sample = (await parts.sample_or_reason())[0] if collection == COLLECTION else None
    thumbnails = await state.gallery.thumbnails.of(generation, registered)
    origins = state.settings.thumbnail_origins
    return [
        _of_sample(i, sample)
        or PageImage(
            i,
            label_of(records[i].metadata),
            thumbnail_path(collection, i)
            if i in thumbnails
            else allowed_url(records[i].metadata, origins),
        )
        for i in registered
    ]


def _of_sample(image_id: str, sample: Sample | None) -> PageImage | None:
    if sample is None or image_id not in sample.keypoints:
        return None
    label = subject_of(image_id, is_query=False)
    return PageImage(image_id, label, f"page/sample/gallery/{quote(image_id)}")


def sample_query(image_id: str) -> PageImage:
    label = subject_of(image_id, is_query=True)
    return PageImage(image_id, label, f"page/sample/queries/{quote(image_id)}")


def label_of(metadata: Mapping[str, Any] | None) -> str | None:
    label = (metadata or {}).get("label")
    return str(label) if isinstance(label, str | int) and label != "" else None


def thumbnail_path(collection: str, image_id: str) -> str:
    return "page/thumbnail?" + urlencode({"collection": collection, "id": image_id})


def allowed_url(metadata: Mapping[str, Any] | None, origins: Collection[str]) -> str | None:
    """`thumbnail_url` if it has one of the `origins`: a registered image must not make browsers
    call any other site."""
    url = (metadata or {}).get("thumbnail_url")
    if not isinstance(url, str):
        return None
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    return url if f"{parts.scheme}://{parts.netloc}".lower() in origins else None
