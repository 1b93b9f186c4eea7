"""An open benchmark: its images, its protocols and its first stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.closing import Closing
from model.config import ModelConfig
from model.evaluation.benchmarks import Benchmark, Files
from model.evaluation.protocols import (
    DIFFICULTIES,
    Protocol,
    labelled_protocol,
    landmark_protocols,
    revisited_protocols,
)
from model.formats.format_error import FormatError
from model.formats.ground_truth import read_ground_truth
from model.formats.image_lists import count_images, read_image_list
from model.formats.nn_file import read_neighbours
from model.formats.published_images import PublishedImages


@dataclass(frozen=True, eq=False)
class Lists:
    """The first stage of a protocol, both (queries, k), best first. Images of a list from its
    `lengths` (queries,) on are not re-ranked: they are the query itself."""

    images: NDArray[np.int64]
    similarities: NDArray[np.float32]
    lengths: NDArray[np.int64]


class BenchmarkData(Closing):
    """`queries` and `gallery` by place, read as they are needed until `close()`; `protocols`, those
    that have a query to count."""

    def __init__(
        self,
        benchmark: Benchmark,
        paths: Files,
        config: ModelConfig,
        difficulties: Sequence[str] = DIFFICULTIES,
    ) -> None:
        """`difficulties`: which protocols of Revisited Oxford or Paris.

        Raises FormatError and DescriptorFileError for files that are missing, damaged, at odds
        with each other, or of other sizes than the checkpoint of `config`.
        """
        paths.check(benchmark)
        self._benchmark = benchmark
        self._opened: list[PublishedImages] = []
        try:
            self.gallery = self._open(paths.gallery_locals, paths.gallery_globals, config)
            self.queries = (
                self.gallery
                if benchmark.among_themselves
                else self._open(paths.query_locals, paths.query_globals, config)
            )
            self._check_lists(paths)
            protocols = self._protocols(paths, difficulties)
            self.protocols = [protocol for protocol in protocols if protocol.counted.any()]
            if not self.protocols:
                raise FormatError(f"{benchmark.name}: no query has a relevant image")
            self._first = read_neighbours(paths.neighbours, len(self.queries), len(self.gallery))
        except ValueError:
            self.close()
            raise

    def close(self) -> None:
        for images in self._opened:
            images.close()

    def lists(self, protocol: Protocol) -> Lists:
        """Every query's list; images that do not count come last."""
        images, similarities = self._first.images, self._first.similarities
        lengths = np.full(len(images), images.shape[1])
        if not self._benchmark.among_themselves and protocol.behind is None:
            return Lists(images, similarities, lengths)
        images, similarities = images.copy(), similarities.copy()
        for query in range(len(images)):
            if protocol.behind is not None:
                last = np.isin(images[query], protocol.behind[query])
            else:
                last = images[query] == query
                lengths[query] -= last.sum()
            order = np.argsort(last, kind="stable")
            images[query] = images[query][order]
            similarities[query] = similarities[query][order]
        return Lists(images, similarities, lengths)

    def _open(self, locals_: Path, globals_: Path | None, config: ModelConfig) -> PublishedImages:
        images = PublishedImages(locals_, globals_, config.sizes, config.descriptors_per_image)
        self._opened.append(images)
        return images

    def _check_lists(self, paths: Files) -> None:
        """Checks that existing image lists have a line for each image."""
        for path, images in ((paths.query_list, self.queries), (paths.gallery_list, self.gallery)):
            if path.is_file() and (lines := count_images(path)) != len(images):
                raise FormatError(
                    f"{path}: {lines} lines, but {images.path} has {len(images)} images"
                )

    def _protocols(self, paths: Files, difficulties: Sequence[str]) -> list[Protocol]:
        benchmark = self._benchmark
        if paths.ground_truth is None:
            queries, gallery = _labels(paths.query_list), _labels(paths.gallery_list)
            return [labelled_protocol(queries, gallery, benchmark.ks, benchmark.among_themselves)]
        truth = read_ground_truth(paths.ground_truth, len(self.gallery)).queries
        if len(truth) != len(self.queries):
            raise FormatError(
                f"{paths.ground_truth}: {len(truth)} queries, but {self.queries.path} has "
                f"{len(self.queries)} images"
            )
        graded = benchmark.kind == "revisited"
        if any(of.graded != graded for of in truth):
            keys = "`easy` and `hard`" if graded else "`ok`"
            raise FormatError(f"{paths.ground_truth}: not every query has {keys}")
        if graded:
            return revisited_protocols(truth, difficulties, benchmark.ks)
        return landmark_protocols(truth)


def _labels(path: Path) -> NDArray[np.int64]:
    labels = read_image_list(path).labels
    if labels is None:
        raise FormatError(f"{path}: has no labels")
    return labels
