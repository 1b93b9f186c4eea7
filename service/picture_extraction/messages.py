"""The messages between the service and its extractor's process, as msgpack."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
from safetensors.numpy import load, save

from model.descriptors import ExtractedImage


class Picture(msgspec.Struct):
    """A file's bytes, and whether to make a thumbnail too."""

    data: bytes
    thumbnail: bool


class Ready(msgspec.Struct, tag=True):
    """The extractor is loaded."""

    name: str
    version: str


class NotInstalled(msgspec.Struct, tag=True):
    """The extractor cannot be loaded here; the process ends."""

    why: str


class Described(msgspec.Struct, tag=True):
    """`arrays`: those of ExtractedImage, as safetensors; `width`, `height`: of the upright picture,
    in pixels."""

    arrays: bytes
    width: int
    height: int
    thumbnail: bytes | None


class Refused(msgspec.Struct, tag=True):
    """The picture cannot be described; `max_pixels` if it has too many."""

    why: str
    max_pixels: int | None = None


class Failed(msgspec.Struct, tag=True):
    """A defect in the extractor, or no memory; `why` is for the log."""

    why: str


Answer = Ready | NotInstalled | Described | Refused | Failed

_picture = msgspec.msgpack.Decoder(Picture)
_answer: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)


def encode(message: Picture | Answer) -> bytes:
    return msgspec.msgpack.encode(message)


def picture_from(data: bytes) -> Picture:
    return _picture.decode(data)


def answer_from(data: bytes) -> Answer:
    return _answer.decode(data)


@dataclass(frozen=True, eq=False)
class ExtractedPicture:
    """The result for a picture; `size`: width and height in pixels, upright; `thumbnail`: WebP, if
    requested."""

    features: ExtractedImage
    size: tuple[int, int]
    thumbnail: bytes | None


def described(
    features: ExtractedImage, size: tuple[int, int], thumbnail: bytes | None
) -> Described:
    arrays = {name: np.ascontiguousarray(array) for name, array in vars(features).items()}
    return Described(save(arrays), *size, thumbnail)


def extracted(answer: Described) -> ExtractedPicture:
    features = ExtractedImage(**load(answer.arrays))
    return ExtractedPicture(features, (answer.width, answer.height), answer.thumbnail)
