"""What the page's routes share, in addition to the service's state."""

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
    """The sample is read again when its file has changed, since it may be made while the service
    runs."""

    folders: SampleFolders
    config: ModelConfig
    _version: int | None = field(default=None, init=False)
    _sample: Sample | DescriptorFileError | None = field(default=None, init=False)
    _loading: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    _globals: GlobalsCache | None = field(default=None, init=False)

    def globals(self, state: ServiceState) -> GlobalsCache:
        if self._globals is None:
            self._globals = GlobalsCache(state.gallery, state.settings.page_bytes)
        return self._globals

    async def _load(self) -> Sample | DescriptorFileError | None:
        """None if there is no sample. A file is read once, even if it cannot be used."""
        try:
            version = self.folders.request.stat().st_mtime_ns
        except FileNotFoundError:
            return None
        async with self._loading:
            if self._version != version:
                name = self.config.extractor.name
                try:
                    self._sample = await asyncio.to_thread(load_sample, self.folders, name)
                except DescriptorFileError as error:
                    # The message has a path, which is only for the log.
                    log.warning("sample_unreadable", why=str(error))
                    self._sample = error
                self._version = version
            return self._sample

    async def sample(self) -> Sample:
        """Raises NotFoundError."""
        sample, why = await self.sample_or_reason()
        if sample is None:
            raise NotFoundError(why, code="no_sample")
        return sample

    async def sample_or_reason(self) -> tuple[Sample | None, str]:
        sample = await self._load()
        if isinstance(sample, DescriptorFileError):
            return None, "the sample gallery on disk does not fit this checkpoint"
        return sample, "there is no sample gallery here"


def make_parts(app: FastAPI, settings: Settings, config: ModelConfig) -> None:
    app.state.page = PageParts(SampleFolders(settings.data_dir / "sample"), config)


async def page_parts(request: Request) -> PageParts:
    parts: PageParts = request.app.state.page
    return parts


Parts = Annotated[PageParts, Depends(page_parts)]
Answer = dict[str, Any]
