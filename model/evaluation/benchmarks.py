"""The published benchmarks: their data, the files they need, and reported figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from model.formats.format_error import FormatError

Kind = Literal["revisited", "landmarks", "labelled"]
REPORTED_BY = "Xiao et al., CVPR 2025"
"""The source of `Benchmark.reported`."""


@dataclass(frozen=True)
class Reported:
    """Percent, for a protocol and a metric, where known: of the first stage and re-ranked."""

    first_stage: float | None
    reranked: float | None


@dataclass(frozen=True)
class Benchmark:
    """`queries` and `gallery`: the folders of the descriptors. Where `among_themselves` every
    gallery image is a query, and left out of its own list. `source`: who publishes the images.
    `ks`: of recall or precision at k. `reported`: by protocol and metric."""

    name: str
    kind: Kind
    queries: str
    gallery: str
    source: str
    ks: tuple[int, ...]
    among_themselves: bool = False
    reported: Mapping[tuple[str, str], Reported] | None = None


_REVISITOP = "http://cmp.felk.cvut.cz/revisitop/"


def _revisited(
    name: str, distractors: bool, reported: Mapping[tuple[str, str], Reported] | None = None
) -> Benchmark:
    gallery = f"{name}+1m" if distractors else name
    return Benchmark(gallery, "revisited", name, gallery, _REVISITOP, (1, 5, 10), reported=reported)


BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        _revisited("roxford5k", distractors=False),
        _revisited("rparis6k", distractors=False),
        _revisited(
            "roxford5k",
            distractors=True,
            reported={
                ("medium", "mAP"): Reported(None, 86.5),
                ("hard", "mAP"): Reported(None, 76.3),
            },
        ),
        _revisited("rparis6k", distractors=True),
        Benchmark(
            "gldv2",
            "landmarks",
            "gldv2-test",
            "gldv2-index",
            "https://github.com/cvdfoundation/google-landmark",
            (),
        ),
        Benchmark(
            "sop",
            "labelled",
            "sop",
            "sop",
            "http://cvgl.stanford.edu/projects/lifted_struct/",
            (1, 10, 100, 1000),
            among_themselves=True,
            reported={("all", "R@1"): Reported(80.8, 83.8)},
        ),
        Benchmark(
            "inshop",
            "labelled",
            "inshop",
            "inshop",
            "https://mmlab.ie.cuhk.edu.hk/projects/DeepFashion.html",
            (1, 10, 20, 30),
        ),
        Benchmark(
            "cub200",
            "labelled",
            "cub200",
            "cub200",
            "https://www.vision.caltech.edu/datasets/cub_200_2011/",
            (1, 2, 4, 8),
            among_themselves=True,
        ),
    )
}


@dataclass(frozen=True)
class Files:
    """The files of a benchmark. Globals are None if the checkpoint reads none; the ground truth is
    None if labels define relevance."""

    query_locals: Path
    query_globals: Path | None
    gallery_locals: Path
    gallery_globals: Path | None
    neighbours: Path
    query_list: Path
    gallery_list: Path
    ground_truth: Path | None

    def needed(self, benchmark: Benchmark) -> list[Path]:
        """The files that an evaluation reads; image lists only where they have the labels."""
        paths = [getattr(self, field.name) for field in fields(self)]
        lists = () if benchmark.kind == "labelled" else (self.query_list, self.gallery_list)
        return [path for path in dict.fromkeys(paths) if path is not None and path not in lists]

    def check(self, benchmark: Benchmark) -> None:
        """Raises FormatError with every missing file."""
        missing = [str(path) for path in self.needed(benchmark) if not path.is_file()]
        if missing:
            raise FormatError(f"{benchmark.name}: missing {', '.join(missing)}")


def files(
    benchmark: Benchmark,
    data: Path,
    descriptor_name: str = "dinov2",
    neighbours: Path | None = None,
    with_globals: bool = True,
) -> Files:
    """The files below `data`, in the layout of the published code."""
    queries, gallery = data / benchmark.queries, data / benchmark.gallery
    of_query, of_gallery = f"{descriptor_name}_query", f"{descriptor_name}_gallery"
    lists = gallery
    if benchmark.kind == "landmarks":
        of_query = of_gallery = descriptor_name
        lists = queries
    query_list = queries / "test_query.txt"
    if benchmark.among_themselves:
        of_query, query_list = of_gallery, lists / "test_gallery.txt"
    truth = queries / f"gnd_{benchmark.queries}.pkl"
    return Files(
        query_locals=queries / f"{of_query}_local.hdf5",
        query_globals=queries / f"{of_query}_global.pt" if with_globals else None,
        gallery_locals=gallery / f"{of_gallery}_local.hdf5",
        gallery_globals=gallery / f"{of_gallery}_global.pt" if with_globals else None,
        neighbours=neighbours or lists / f"nn_{descriptor_name}.pkl",
        query_list=query_list,
        gallery_list=lists / "test_gallery.txt",
        ground_truth=None if benchmark.kind == "labelled" else truth,
    )
