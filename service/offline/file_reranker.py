"""Re-ranks lists from descriptor files as POST /rerank would, without a server or a store."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from model.checkpoint import LoadedModel
from model.config import ModelConfig
from model.descriptor_file import DescriptorFileError, DescriptorReader, NoDescriptorError
from model.descriptors import (
    DescriptorSizes,
    ImageDescriptors,
    InvalidDescriptorsError,
    first_stage_scores,
)
from model.formats.shortlists import Shortlist
from model.learnt_metric import Metric
from model.quantisation import StoreDtype
from model.reranker import score_windows
from model.windows import Direction, Window
from service.api.rerank_options import rerank_options
from service.api.sizes import misfit
from service.batching.job import Job
from service.batching.window_queue import WindowQueue
from service.batching.worker import measured_speed
from service.gallery.cache import CachedRecord, RecordCache
from service.gallery.record import (
    DEFAULT_STORE_DTYPE,
    GalleryRecord,
    as_stored,
)
from service.offline.offline_error import OfflineError
from service.offline.shared_passes import rerank_in_batches

_MAX_LISTS = 256
_QUEUED_TOKENS = 20
"""Tokens of lists in memory for every token of a batch: enough lists to combine windows of similar
length."""


@dataclass(frozen=True)
class OfflineOptions:
    """The fields of POST /rerank, None for the checkpoint's default, and the service's settings for
    storing the gallery."""

    alpha: float | None = None
    temperature: float | None = None
    window: int | None = None
    stride: int | None = None
    direction: Direction | None = None
    top_n: int | None = None
    on_missing: Literal["error", "skip"] = "error"
    store_dtype: StoreDtype = DEFAULT_STORE_DTYPE
    pool_locals: int | None = None
    batch_tokens: int = 20_480
    cache_bytes: int = 256 << 20

    def stored(self, image: ImageDescriptors) -> ImageDescriptors:
        """The image as the service would read it from its store."""
        return as_stored({"": image}, self.store_dtype, self.pool_locals)[""]

    def __post_init__(self) -> None:
        """Raises OfflineError for NaN and infinity."""
        for name in ("alpha", "temperature"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise OfflineError(f"{name}: {value} is not a finite number")


@dataclass(frozen=True)
class OfflineResult:
    """Like `locore_client.contract.Result`; `index` is the id's place in its shortlist."""

    id: str
    index: int
    relevance_score: float


@dataclass(frozen=True)
class Answer:
    """`results`: best first, empty if the query has no descriptors; `missing`: ids of the shortlist
    without descriptors."""

    query: str
    results: list[OfflineResult]
    missing: list[str]

    def as_line(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False) + "\n"


class Images:
    """Images of a descriptor file by id, as in the service. Keeps the file's ids and at most
    `cache_bytes` of images in memory."""

    def __init__(
        self,
        reader: DescriptorReader,
        config: ModelConfig,
        cache_bytes: int = 0,
        metric: Metric | None = None,
        stored: Callable[[ImageDescriptors], ImageDescriptors] = lambda image: image,
    ) -> None:
        """`stored`: how the service would store an image. Raises DescriptorFileError if the
        descriptors do not fit the checkpoint or the metric, which must fit the checkpoint."""
        if metric is not None:
            _check_sizes(reader, metric.sizes, "the metric")
        elif config.sizes is not None:
            _check_sizes(reader, config.sizes, config.name)
        self._metric = metric
        self._reader = reader
        self._config = config
        self._stored = stored
        self._cache = RecordCache(cache_bytes)
        self._places = {image_id: place for place, image_id in enumerate(reader.ids)}
        if len(self._places) < len(reader.ids):
            raise DescriptorFileError(f"{reader.path}: an id occurs twice")

    def get(self, image_id: str) -> ImageDescriptors | None:
        """None if there is no such image, or it has no valid descriptor (`locore load` skips it
        as well). Raises DescriptorFileError."""
        key = ("", image_id)
        entry = self._cache.get(key)
        if entry is not None:
            return entry.record.descriptors
        place = self._places.get(image_id)
        if place is None:
            return None
        try:
            image = self._reader.read(place, self._config.descriptors_per_image)
        except NoDescriptorError:
            return None
        image = self._stored(image)
        if self._metric is not None:
            try:
                image = self._metric.apply(image)
            except InvalidDescriptorsError as error:
                raise DescriptorFileError(
                    f"{self._reader.path}: image {image_id!r}: {error}"
                ) from None
        self._cache.put(key, CachedRecord(GalleryRecord(image), b"", image.nbytes, checked_at=0.0))
        return image


@dataclass(frozen=True)
class _Described:
    """`places`: those of the shortlist's images that have descriptors."""

    shortlist: Shortlist
    places: list[int]


class OfflineReranker:
    """Re-ranks any number of shortlists; memory does not grow with it."""

    def __init__(
        self,
        model: LoadedModel,
        queries: DescriptorReader,
        gallery: DescriptorReader,
        options: OfflineOptions,
        metric: Metric | None = None,
    ) -> None:
        """Raises DescriptorFileError if files do not fit the checkpoint, the metric or each
        other."""
        self._model = model
        self._options = options
        self._queries = Images(queries, model.config, metric=metric)
        self._gallery = Images(gallery, model.config, options.cache_bytes, metric, options.stored)
        _check_sizes(queries, gallery.sizes, str(gallery.path))
        self._paths = queries.path, gallery.path

    def answers(self, shortlists: Iterable[Shortlist]) -> Iterator[Answer]:
        """Yields an answer for each list, in their order.

        Raises OfflineError for missing images unless `on_missing` is `skip`, and where the model
        gives a number that is not finite; UnprocessableError as POST /rerank does.
        """
        options = self._options
        queue = WindowQueue(
            measured_speed(self._model),
            max_batch_tokens=options.batch_tokens,
            max_queue_tokens=_QUEUED_TOKENS * options.batch_tokens,
        )
        lists = (self._list(shortlist) for shortlist in shortlists)
        for described, job in rerank_in_batches(lists, self._score, queue, _MAX_LISTS):
            yield self._answer(described, job)

    def _list(self, shortlist: Shortlist) -> tuple[_Described, Job | None]:
        config, options = self._model.config, self._options
        ids = shortlist.gallery_ids
        settings = rerank_options(
            config,
            len(ids),
            alpha=options.alpha,
            temperature=options.temperature,
            window=options.window,
            stride=options.stride,
            direction=options.direction,
        )
        query = self._queries.get(shortlist.query)
        images = [self._gallery.get(image_id) for image_id in ids]
        if options.on_missing == "error":
            self._check_present(shortlist, query, images)
        places = [place for place, image in enumerate(images) if image is not None]
        gallery = [image for image in images if image is not None]
        described = _Described(shortlist, places)
        if query is None or not gallery:
            return described, None
        if shortlist.global_scores is None:
            first_stage = first_stage_scores(query, gallery)
        else:
            first_stage = np.array(shortlist.global_scores, np.float32)[places]
        job = Job(config, len(gallery), settings)
        job.begin(query, gallery, first_stage)
        return described, job

    def _check_present(
        self,
        shortlist: Shortlist,
        query: ImageDescriptors | None,
        images: Sequence[ImageDescriptors | None],
    ) -> None:
        queries, gallery = self._paths
        if query is None:
            raise OfflineError(f"{queries}: no descriptors of query {shortlist.query!r}")
        missing = [i for i, im in zip(shortlist.gallery_ids, images, strict=True) if im is None]
        if missing:
            raise OfflineError(
                f"{gallery}: has no descriptors of {len(missing)} images of the list of query "
                f"{shortlist.query!r}, {missing[0]!r} first"
            )

    def _score(self, windows: Sequence[Window]) -> list[NDArray[np.float32]]:
        scores = score_windows(self._model.reranker, windows, self._model.device)
        if not all(np.isfinite(logits).all() for logits in scores):
            raise OfflineError(f"{self._model.config.name} returned a logit that is not finite")
        return scores

    def _answer(self, described: _Described, job: Job | None) -> Answer:
        shortlist, places = described.shortlist, described.places
        ids = shortlist.gallery_ids
        missing = [ids[i] for i in sorted(set(range(len(ids))) - set(places))]
        if job is None:
            return Answer(shortlist.query, [], missing)
        order, relevance = job.result()
        top = order[: self._options.top_n]
        results = [
            OfflineResult(ids[places[place]], places[place], float(score))
            for place, score in zip(top, relevance, strict=False)
        ]
        return Answer(shortlist.query, results, missing)


def _check_sizes(reader: DescriptorReader, expected: DescriptorSizes, whose: str) -> None:
    wrong = misfit(reader.sizes, expected)
    if wrong is not None:
        part = "descriptors" if wrong.part == "descriptors" else "globals"
        raise DescriptorFileError(
            f"{reader.path}: {part} of {wrong.actual} numbers, but {whose} has {wrong.expected}"
        )
