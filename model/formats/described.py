"""Images of a published data set: locals of one file, globals of another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from model.closing import Closing
from model.config import ModelConfig
from model.descriptor_file import DescriptorReader
from model.descriptors import ImageDescriptors
from model.formats.errors import FormatError
from model.formats.globals import GlobalFile


class DescribedImages(Closing):
    """Images by place, `images[i]`, with as many locals as the checkpoint of `config` takes.
    Only the rows of that image are read."""

    def __init__(self, locals_path: Path, globals_path: Path | None, config: ModelConfig) -> None:
        """No globals where there is no `globals_path`.

        Raises DescriptorFileError, and FormatError where sizes do not fit the checkpoint.
        """
        self.path = locals_path
        self._most = config.descriptors_per_image
        self._reader = DescriptorReader(locals_path, config.descriptor_dim)
        try:
            _fits(locals_path, "local", self._reader.descriptor_dim, config.descriptor_dim, config)
            self._globals = None if globals_path is None else GlobalFile(globals_path, len(self))
            if self._globals is not None:
                _fits(self._globals.path, "global", self._globals.dim, config.global_dim, config)
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
        image = self._reader.read(place, self._most, with_global=False)
        return image if self._globals is None else replace(image, global_=self._globals[place])


def _fits(path: Path, kind: str, found: int, expected: int, config: ModelConfig) -> None:
    if found != expected:
        raise FormatError(
            f"{path}: {kind} descriptors of {found} dimensions, where {config.name} takes "
            f"{expected}"
        )
