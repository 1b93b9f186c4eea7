"""The collection for synchronous code, directly in the service's store."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from model.closing import Closing
from model.quantisation import StoreDtype
from service.cli.own_images.folder_pictures import OwnPicture
from service.gallery.registered_images import Gallery
from service.gallery.store_connection import connect_store

_PAGE = 10_000


@dataclass(frozen=True)
class Place:
    """A collection of a store, and the settings of its images."""

    collection: str
    store_url: str = field(repr=False)
    store_dtype: StoreDtype
    pool_locals: int | None
    thumbnail_bytes: int


class OwnCollection(Closing):
    """Raises what Gallery raises."""

    def __init__(self, place: Place) -> None:
        self.name = place.collection
        self._runner = asyncio.Runner()
        self._store = connect_store(place.store_url)
        self._gallery = Gallery(
            self._store,
            cache_bytes=0,
            dtype=place.store_dtype,
            pool_locals=place.pool_locals,
            thumbnail_bytes=place.thumbnail_bytes,
        )

    def ids(self) -> set[str]:
        ids: set[str] = set()
        after: str | None = None
        while True:
            page = self._runner.run(self._gallery.page(self._generation(), _PAGE, after))
            ids.update(page.ids)
            after = page.next_cursor
            if after is None:
                return ids

    def register(self, pictures: Sequence[OwnPicture]) -> None:
        records = {picture.image_id: picture.record for picture in pictures}
        if records:
            thumbnails = {o.image_id: o.thumbnail for o in pictures if o.thumbnail is not None}
            self._runner.run(self._gallery.register(self.name, records, None, thumbnails))

    def remove(self, image_id: str) -> None:
        self._runner.run(self._gallery.delete(self._generation(), image_id))

    def _generation(self) -> str:
        return self._runner.run(self._gallery.names.resolve(self.name))

    def close(self) -> None:
        self._runner.run(self._store.close())
        self._runner.close()
