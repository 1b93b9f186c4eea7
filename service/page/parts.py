"""What the page's routes share in addition to the service's state."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Annotated, Any

import structlog
from fastapi import Depends, FastAPI, Request

from model.config import ModelConfig
from model.descriptor_file import DescriptorFileError
from service.api.errors import NotFoundError
from service.page.globals_cache import GlobalsCache
from service.page.sample.sample_folders import SampleFolders
from service.page.sample.sample_images import Sample, load_sample
from service.settings import Settings
from service.state import ServiceState

log = structlog.get_logger(__name__)


@dataclass(eq=False)
class PageParts:
    """The sample is read again when its file has changed: it may be made while the service
    runs."""

    folders: SampleFolders
    config: ModelConfig
    _read: tuple[int, Sample | None] | None = None
    _globals: GlobalsCache | None = field(default=None, init=False)

    def globals(self, state: ServiceState) -> GlobalsCache:
        if self._globals is None:
            self._globals = GlobalsCache(state.gallery, state.settings.page_bytes)
        return self._globals

    def load(self) -> Sample | None:
        """None where there is none. Raises DescriptorFileError."""
        try:
            version = self.folders.request.stat().st_mtime_ns
        except FileNotFoundError:
            return None
        if self._read is None or self._read[0] != version:
            self._read = version, load_sample(self.folders, self.config.extractor.name)
        return self._read[1]

    async def sample(self) -> Sample:
        """Raises NotFoundError."""
        sample, why = await self.sample_or_reason()
        if sample is None:
            raise NotFoundError(why, code="no_sample")
        return sample

    async def sample_or_reason(self) -> tuple[Sample | None, str]:
        try:
            sample = await asyncio.to_thread(self.load)
        except DescriptorFileError as error:
            # The message has a path, which is for the log only.
            log.warning("sample_unreadable", why=str(error))
            return None, "the sample gallery on disk does not go with this checkpoint"
        return sample, "there is no sample gallery here"


def make_parts(app: FastAPI, settings: Settings, config: ModelConfig) -> None:
    app.state.page = PageParts(SampleFolders(settings.data_dir / "sample"), config)


async def page_parts(request: Request) -> PageParts:
    parts: PageParts = request.app.state.page
    return parts


Parts = Annotated[PageParts, Depends(page_parts)]
Answer = dict[str, Any]
