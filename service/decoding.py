"""From a request's arrays to checked, normalised descriptors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from model.config import ModelConfig
from model.descriptors import (
    DescriptorSizes,
    ImageDescriptors,
    InvalidDescriptorsError,
    normalised,
    normalised_rows,
)
from service.arrays import InvalidArrayError, unpack
from service.errors import DescriptorDimMismatchError, UnprocessableError
from service.gallery.record import GalleryRecord, encode_metadata
from service.schemas import (
    MAX_METADATA_BYTES,
    GalleryImage,
    QueryDescriptors,
    QueryId,
    RegisterRequest,
    RerankRequest,
)
from service.sizes import beyond_limits, misfit

_Checked = TypeVar("_Checked")


@dataclass(frozen=True, eq=False)
class Decoded:
    """`truncated`: the image came with more rows than the checkpoint takes."""

    image: ImageDescriptors
    truncated: bool


def decode_registration(
    request: RegisterRequest, config: ModelConfig
) -> tuple[dict[str, GalleryRecord], int]:
    """(records by id, how many were truncated). Raises ApiError naming the image and field."""
    records: dict[str, GalleryRecord] = {}
    truncated = 0
    for place, image in enumerate(request.images):
        where = f"images.{place}"
        if image.id in records:
            raise UnprocessableError(
                f"{where}.id: {image.id!r} comes twice", field=f"{where}.id", id=image.id
            )
        if image.metadata is not None:
            _check_metadata(image.metadata, f"{where}.metadata")
        decoded = decode_image(image, config, where)
        truncated += decoded.truncated
        records[image.id] = GalleryRecord(decoded.image, image.metadata)
    return records, truncated


def _check_metadata(metadata: dict[str, Any], field: str) -> None:
    try:
        size = len(encode_metadata(metadata))
    except ValueError as error:
        raise UnprocessableError(f"{field}: {error}", field=field) from None
    if size > MAX_METADATA_BYTES:
        raise UnprocessableError(f"{field}: {size} bytes, over {MAX_METADATA_BYTES}", field=field)


def decode_query(request: RerankRequest, config: ModelConfig) -> Decoded | QueryId:
    """The query, once the rest of the request makes sense; a stored image is looked up later.
    Raises ApiError."""
    ids = request.gallery_ids
    if len(set(ids)) < len(ids):
        twice = next(image_id for image_id, times in Counter(ids).items() if times > 1)
        raise UnprocessableError(
            f"gallery_ids: {twice!r} comes twice",
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
        case QueryId() as stored:
            return stored


def decode_image(
    image: GalleryImage | QueryDescriptors, config: ModelConfig, where: str
) -> Decoded:
    """Checks every row that came, keeps those that count. Raises UnprocessableError."""
    field, global_field = f"{where}.descriptors", f"{where}.global"
    rows = _array(image.descriptors, 2, field)
    vector = None if image.global_ is None else _array(image.global_, 1, global_field)
    sizes = DescriptorSizes(rows.shape[1], None if vector is None else len(vector))
    _check_sizes(sizes, config, where, image.id if isinstance(image, GalleryImage) else None)
    scales = _by_row(image.scales, len(rows), f"{where}.scales")
    mask = _by_row(image.mask, len(rows), f"{where}.mask") > 0
    global_ = None if vector is None else _checked(partial(normalised, vector), global_field)
    locals_, padding = _checked(partial(normalised_rows, rows, mask), field)
    whole = ImageDescriptors(locals_, scales, global_, padding)
    kept = whole.strongest(config.descriptors_per_image)
    if kept.padding is not None and kept.padding.all():
        message = f"{field}: no valid row among the first {kept.count}"
        raise UnprocessableError(message, code="invalid_descriptors", field=field)
    return Decoded(kept, not mask[kept.count :].all())


def _check_sizes(
    sizes: DescriptorSizes, config: ModelConfig, where: str, image_id: str | None
) -> None:
    wrong = None if config.sizes is None else misfit(sizes, config.sizes)
    if wrong is not None:
        named = {} if image_id is None else {"id": image_id}
        raise DescriptorDimMismatchError(f"{where}.{wrong.part}", wrong, "the checkpoint", **named)
    beyond = beyond_limits(sizes)
    if beyond is not None:
        part, why = beyond
        raise UnprocessableError(f"{where}.{part}: {why}", field=f"{where}.{part}")


def _by_row(numbers: list[int] | None, rows: int, field: str) -> NDArray[np.uint8]:
    """Small integers, one a row; zeros where none came."""
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
