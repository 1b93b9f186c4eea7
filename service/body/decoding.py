"""From a request's arrays to checked, normalised descriptors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from locore_client.packing import InvalidArrayError
from model.config import ModelConfig
from model.descriptors import (
    DescriptorSizes,
    ExtractedImage,
    ImageDescriptors,
    InvalidDescriptorsError,
    normalised,
    normalised_rows,
)
from service.api.arrays import unpack
from service.api.errors import DescriptorDimMismatchError, TooLargeError, UnprocessableError
from service.api.schemas import (
    MAX_METADATA_BYTES,
    GalleryImage,
    QueryDescriptors,
    QueryId,
    QueryPicture,
    RegisterRequest,
    RerankRequest,
)
from service.api.sizes import beyond_limits, misfit
from service.gallery.record import GalleryRecord, encode_metadata

_Checked = TypeVar("_Checked")


@dataclass(frozen=True, eq=False)
class Decoded:
    """`truncated`: the image had more rows than the checkpoint reads."""

    image: ImageDescriptors
    truncated: bool


@dataclass(frozen=True, eq=False)
class Undescribed:
    """An image that was sent as a picture, at the place `where` of the request."""

    where: str
    picture: bytes
    metadata: dict[str, Any] | None


def decode_registration(
    request: RegisterRequest, config: ModelConfig, max_image_bytes: int
) -> tuple[dict[str, GalleryRecord | Undescribed], int]:
    """Returns images by id, and how many were truncated. Raises ApiError with the image and
    field."""
    images: dict[str, GalleryRecord | Undescribed] = {}
    truncated = 0
    for place, image in enumerate(request.images):
        where = f"images.{place}"
        if image.id in images:
            raise UnprocessableError(
                f"{where}.id: {image.id!r} occurs twice", field=f"{where}.id", id=image.id
            )
        if image.metadata is not None:
            _check_metadata(image.metadata, f"{where}.metadata")
        if image.image is not None:
            picture = image.image.data
            check_picture(picture, max_image_bytes, f"{where}.image", id=image.id)
            images[image.id] = Undescribed(where, picture, image.metadata)
            continue
        decoded = decode_image(image, config, where)
        truncated += decoded.truncated
        images[image.id] = GalleryRecord(decoded.image, image.metadata)
    return images, truncated


def check_picture(picture: bytes, max_bytes: int, field: str, **details: Any) -> None:
    """Raises TooLargeError."""
    if len(picture) > max_bytes:
        message = f"{field}: a picture of {len(picture)} bytes, over {max_bytes}"
        raise TooLargeError(message, field=field, max_image_bytes=max_bytes, **details)


def _check_metadata(metadata: dict[str, Any], field: str) -> None:
    try:
        size = len(encode_metadata(metadata))
    except ValueError as error:
        raise UnprocessableError(f"{field}: {error}", field=field) from None
    if size > MAX_METADATA_BYTES:
        raise UnprocessableError(f"{field}: {size} bytes, over {MAX_METADATA_BYTES}", field=field)


def decode_query(
    request: RerankRequest, config: ModelConfig, max_image_bytes: int
) -> Decoded | bytes | QueryId:
    """Checks the rest of the request, then decodes the query. Pictures are described, and stored
    images fetched, later. Raises ApiError."""
    ids = request.gallery_ids
    if len(set(ids)) < len(ids):
        twice = next(image_id for image_id, times in Counter(ids).items() if times > 1)
        raise UnprocessableError(
            f"gallery_ids: {twice!r} occurs twice",
            code="duplicate_gallery_ids",
            field="gallery_ids",
            id=twice,
        )
    if request.global_scores is not None and len(request.global_scores) != len(ids):
        raise UnprocessableError(
            f"global_scores: {len(request.global_scores)} scores for {len(ids)} ids",
            field="global_scores",
        )
    match request.query:
        case QueryDescriptors() as image:
            return decode_image(image, config, "query")
        case QueryPicture(image=picture):
            check_picture(picture.data, max_image_bytes, "query.image")
            return picture.data
        case QueryId() as stored:
            return stored


def decode_image(
    image: GalleryImage | QueryDescriptors, config: ModelConfig, where: str
) -> Decoded:
    """Checks all rows of the descriptors, and keeps as many as the checkpoint reads. Raises
    UnprocessableError."""
    rows = _array(image.descriptors, 2, f"{where}.descriptors")
    vector = None if image.global_ is None else _array(image.global_, 1, f"{where}.global")
    details = {"id": image.id} if isinstance(image, GalleryImage) else {}
    _check_sizes(rows, vector, config, where, **details)
    scales = _by_row(image.scales, len(rows), f"{where}.scales")
    mask = _by_row(image.mask, len(rows), f"{where}.mask") > 0
    return _decoded(rows, vector, scales, mask, config, where)


def decode_extracted(
    features: ExtractedImage, config: ModelConfig, where: str, **details: str
) -> Decoded:
    """The same checks for an extractor's descriptors. Raises UnprocessableError with these
    additional `details`."""
    _check_sizes(features.descriptors, features.global_, config, where, **details)
    no_padding = np.zeros(len(features.descriptors), np.bool_)
    return _decoded(
        features.descriptors, features.global_, features.scales, no_padding, config, where
    )


def _decoded(
    rows: NDArray[np.floating],
    vector: NDArray[np.floating] | None,
    scales: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    config: ModelConfig,
    where: str,
) -> Decoded:
    field, global_field = f"{where}.descriptors", f"{where}.global"
    global_ = None if vector is None else _checked(partial(normalised, vector), global_field)
    locals_, padding = _checked(partial(normalised_rows, rows, mask), field)
    image = ImageDescriptors(locals_, scales, global_, padding)
    strongest = image.strongest(config.descriptors_per_image)
    if strongest.padding is not None and strongest.padding.all():
        message = f"{field}: no valid row among the first {strongest.count}"
        raise UnprocessableError(message, code="invalid_descriptors", field=field)
    return Decoded(strongest, not mask[strongest.count :].all())


def _check_sizes(
    rows: NDArray[np.floating],
    vector: NDArray[np.floating] | None,
    config: ModelConfig,
    where: str,
    **details: str,
) -> None:
    sizes = DescriptorSizes(rows.shape[1], None if vector is None else len(vector))
    wrong = None if config.sizes is None else misfit(sizes, config.sizes)
    if wrong is not None:
        raise DescriptorDimMismatchError(
            f"{where}.{wrong.part}", wrong, "the checkpoint", **details
        )
    beyond = beyond_limits(sizes)
    if beyond is not None:
        part, why = beyond
        raise UnprocessableError(f"{where}.{part}: {why}", field=f"{where}.{part}")


def _by_row(numbers: list[int] | None, rows: int, field: str) -> NDArray[np.uint8]:
    """Small integers, one per row; zeros for None."""
    if numbers is None:
        return np.zeros(rows, np.uint8)
    if len(numbers) != rows:
        raise UnprocessableError(f"{field}: {len(numbers)} for {rows} rows", field=field)
    return np.array(numbers, np.uint8)


def _checked(check: Callable[[str], _Checked], field: str) -> _Checked:
    try:
        return check(field)
    except InvalidDescriptorsError as error:
        raise UnprocessableError(str(error), code="invalid_descriptors", field=field) from None


def _array(array: object, ndim: int, field: str) -> NDArray[np.floating]:
    try:
        return unpack(array, ndim)  # type: ignore[arg-type]
    except InvalidArrayError as error:
        raise UnprocessableError(f"{field}: {error}", field=field) from None
