"""Images that come over HTTP, to descriptors: checked, one at a time, off the event loop."""

from __future__ import annotations

import asyncio
import io
from dataclasses import dataclass
from functools import cached_property

from model.config import ExtractorId
from model.extraction.extractor import ExtractedImage, Extractor, ExtractorError, NoDescriptorsError
from model.extraction.pixels import FORMATS, Pixels, PixelsError, TooManyPixelsError, read_pixels
from model.extraction.registry import load_extractor
from service.errors import NotFoundError, OverloadedError, TooLargeError, UnprocessableError

_MAX_WAITING = 8


@dataclass(frozen=True, eq=False)
class Upload:
    """What was made of an image; `size`: its width and height in pixels, upright."""

    features: ExtractedImage
    size: tuple[int, int]


class Uploads:
    """The checkpoint's extractor, loaded when it is first asked about, in a thread."""

    def __init__(self, extractor: ExtractorId, descriptors_per_image: int) -> None:
        self._wanted = extractor
        self._count = descriptors_per_image
        self._one_at_a_time = asyncio.Lock()
        self._waiting = 0

    @cached_property
    def _loaded(self) -> Extractor | str:
        """The extractor, or why there is none."""
        try:
            extractor = load_extractor(self._wanted.name)
        except ExtractorError as error:
            return str(error)
        found = ExtractorId(name=extractor.name, version=extractor.version)
        if not found.fits(self._wanted):
            return (
                f"{found.name} is here in version {found.version}; the checkpoint reads "
                f"descriptors of version {self._wanted.version}"
            )
        return extractor

    async def problem(self) -> str | None:
        """Why images cannot be extracted here, None where they can."""
        async with self._one_at_a_time:
            loaded = await asyncio.to_thread(lambda: self._loaded)
        return loaded if isinstance(loaded, str) else None

    async def extract(self, data: bytes) -> Upload:
        """Raises NotFoundError where there is no extractor, OverloadedError where too many images
        wait, TooLargeError and UnprocessableError for what is no image that can be read."""
        if self._waiting >= _MAX_WAITING:
            raise OverloadedError("too many images wait to be extracted", retry_after=2)
        self._waiting += 1
        try:
            async with self._one_at_a_time:
                return await asyncio.to_thread(self._extract, data)
        finally:
            self._waiting -= 1

    def _extract(self, data: bytes) -> Upload:
        extractor = self._loaded
        if isinstance(extractor, str):
            raise NotFoundError(
                f"this service cannot extract images: {extractor}", code="extractor_not_installed"
            )
        pixels = read_upload(data)
        try:
            return Upload(extractor.extract(pixels.image, self._count), pixels.size)
        except NoDescriptorsError as error:
            raise UnprocessableError(f"image: {error}", code="not_an_image") from None


def read_upload(data: bytes) -> Pixels:
    """Raises UnprocessableError for what is no image, TooLargeError for one of too many
    pixels."""
    try:
        return read_pixels(io.BytesIO(data))
    except TooManyPixelsError as error:
        raise TooLargeError(f"the image has {error}", max_pixels=error.max_pixels) from None
    except PixelsError:
        raise UnprocessableError(
            f"not an image that can be read; {', '.join(FORMATS)} can", code="not_an_image"
        ) from None
