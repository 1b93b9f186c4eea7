"""Splits a registration of any number of images into requests within the service's limits."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from locore_client.bodies import Image, Picture, image_fields, to_json
from locore_client.contract import RegisterResponse
from locore_client.exceptions import ClientError


@dataclass(frozen=True, eq=False)
class NewImage:
    """An image with metadata, a JSON object of at most 4 KiB."""

    image: Image | Picture
    metadata: dict[str, Any] | None = None


NewImages: TypeAlias = (
    Mapping[str, Image | Picture | NewImage] | Iterable[tuple[str, Image | Picture | NewImage]]
)

_PICTURES = 32
"""The most in one request: they are described one after the other, within the call's timeout."""

_PLACE = re.compile(r"images\.(\d+)\b")


@dataclass(frozen=True)
class Part:
    """One request's images, in their order."""

    ids: list[str]
    body: bytes


def parts(
    images: NewImages,
    collection: str,
    ttl_seconds: int | None,
    max_images: int,
    max_bytes: int,
) -> Iterator[Part]:
    """Yields bodies of POST /gallery. Each has at most `max_images` images, 32 of them pictures,
    and `max_bytes` bytes; a larger image comes alone. Images are read as they are needed. Raises
    InvalidDescriptorsError and InvalidRequestError for what cannot be sent.
    """
    fields = {"collection": collection, "ttl_seconds": ttl_seconds}
    start, end = to_json(fields)[:-1] + b',"images":[', b"]}"
    ids: list[str] = []
    packed: list[bytes] = []
    size = pictures = 0
    for image_id, image in images.items() if isinstance(images, Mapping) else images:
        one, is_picture = _listed(image_id, image), _is_picture(image)
        full = len(ids) == max_images or pictures + is_picture > _PICTURES
        if ids and (full or size + 1 + len(one) > max_bytes):
            yield Part(ids, start + b",".join(packed) + end)
            ids, packed, pictures = [], [], 0
        size = size + 1 + len(one) if ids else len(start) + len(one) + len(end)
        pictures += is_picture
        ids.append(image_id)
        packed.append(one)
    if ids:
        yield Part(ids, start + b",".join(packed) + end)


def _is_picture(image: Image | Picture | NewImage) -> bool:
    return isinstance(image.image if isinstance(image, NewImage) else image, bytes | Path)


def _listed(image_id: str, image: Image | Picture | NewImage) -> bytes:
    """An image's JSON. Raises ClientError with the image's id."""
    further: dict[str, object] = {}
    if isinstance(image, NewImage):
        if image.metadata is not None:
            further["metadata"] = image.metadata
        image = image.image
    try:
        return to_json({"id": image_id, **image_fields(image), **further})
    except ClientError as error:
        error.image_id = image_id
        raise


class Registration:
    """The parts of a registration, sent one by one, and the sum of their answers in `answer`."""

    def __init__(self, parts: Iterator[Part]) -> None:
        self._parts = parts
        self._ids: list[str] = []
        self.answer = RegisterResponse(registered=0, replaced=0, truncated=0)

    def __iter__(self) -> Iterator[Part]:
        for part in self._parts:
            self._ids = part.ids
            yield part

    def add(self, answer: RegisterResponse) -> None:
        self.answer = RegisterResponse(
            registered=self.answer.registered + answer.registered,
            replaced=self.answer.replaced + answer.replaced,
            truncated=self.answer.truncated + answer.truncated,
        )

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Adds to an error how many images are stored already, and which image it is about."""
        try:
            yield
        except ClientError as error:
            error.registered = self.answer.registered
            # The place within a part means nothing to the caller.
            place = _PLACE.match(error.field or "")
            if error.image_id is None and place and int(place[1]) < len(self._ids):
                error.image_id = self._ids[int(place[1])]
            raise
