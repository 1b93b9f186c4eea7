"""Images of a published data set: locals of one file, globals of another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from model.closing import Closing
from model.descriptor_file import DescriptorReader
from model.descriptors import DescriptorSizes, ImageDescriptors
from model.formats.format_error import FormatError
from model.formats.globals import GlobalFile


class PublishedImages(Closing):
    """Images by place, `images[i]`, with their first `max_locals` locals. Only that image's rows
    are read."""

    def __init__(
        self,
        locals_path: Path,
        globals_path: Path | None,
        sizes: DescriptorSizes | None,
        max_locals: int,
    ) -> None:
        """`sizes` that descriptors must have, if any. No globals without a `globals_path`.

        Raises DescriptorFileError, and FormatError for other sizes.
        """
        self.path = locals_path
        self._max_locals = max_locals
        self._reader = DescriptorReader(locals_path, None if sizes is None else sizes.local_dim)
        try:
            self._globals = None if globals_path is None else GlobalFile(globals_path, len(self))
            if sizes is not None:
                _check(locals_path, "local", self._reader.descriptor_dim, sizes.local_dim)
            if sizes is not None and self._globals is not None:
                _check(self._globals.path, "global", self._globals.dim, sizes.global_dim or 0)
        except FormatError:
            self.close()
            raise

    def close(self) -> None:
        self._reader.close()

    def __len__(self) -> int:
        return len(self._reader)

    def __getitem__(self, place: int) -> ImageDescriptors:
        """Raises NoDescriptorError for an image that is all padding, DescriptorFileError and
        FormatError for what cannot be scored, such as NaN."""
        image = self._reader.read(place, self._max_locals, with_global=False)
        return image if self._globals is None else replace(image, global_=self._globals[place])


def _check(path: Path, kind: str, dim: int, expected: int) -> None:
    if dim != expected:
        raise FormatError(
            f"{path}: {kind} descriptors of {dim} dimensions, but {expected} are required"
        )
