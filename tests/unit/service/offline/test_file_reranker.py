"""Descriptor files of any size, re-ranked by a model that takes any."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model.checkpoint import LoadedModel
from model.descriptor_file import DescriptorFileError, DescriptorReader
from model.descriptors import DescriptorSizes, first_stage_scores
from model.formats.shortlists import Shortlist
from service.offline.file_reranker import OfflineOptions, OfflineReranker
from tests.any_size import CONFIG, ChamferReranker, chamfer
from tests.descriptor_files import write_descriptors
from tests.factories import load_sized
from tests.metric_files import random_metric

ANY_SIZE = LoadedModel(ChamferReranker(CONFIG), torch.device("cpu"), torch.float32, "none", None)
OPTIONS = OfflineOptions(alpha=0, store_dtype="float32")


def written(path: Path, sizes: tuple[int, int], *ids: str) -> DescriptorReader:
    write_descriptors(path, list(ids), seed=len(ids), sizes=sizes)
    return DescriptorReader(path)


def test_files_of_any_size_are_re_ranked(tmp_path: Path) -> None:
    ids = [f"{name}/{name}-1" for name in "abcdefgh"]
    queries = written(tmp_path / "queries.h5", (5, 3), "q/q-1")
    gallery = written(tmp_path / "gallery.h5", (5, 3), *ids)
    reranker = OfflineReranker(ANY_SIZE, queries, gallery, OPTIONS)
    (answer,) = reranker.answers([Shortlist("q/q-1", ids, None)])
    likeness = {i: chamfer(queries[0], gallery[place]) for place, i in enumerate(ids)}
    assert [r.id for r in answer.results] == sorted(ids, key=lambda i: -likeness[i])


def test_in_a_metric_the_first_stage_is_in_it(tmp_path: Path) -> None:
    ids = [f"{name}/{name}-1" for name in "abcdefgh"]
    queries = written(tmp_path / "queries.h5", (5, 3), "q/q-1")
    gallery = written(tmp_path / "gallery.h5", (5, 3), *ids)
    metric = random_metric(DescriptorSizes(5, 3))
    options = replace(OPTIONS, alpha=1)
    (answer,) = OfflineReranker(ANY_SIZE, queries, gallery, options, metric).answers(
        [Shortlist("q/q-1", ids, None)]
    )
    images = [metric.apply(gallery[place]) for place in range(len(ids))]
    cosines = first_stage_scores(metric.apply(queries[0]), images)
    assert cosines is not None
    assert [r.index for r in answer.results] == np.argsort(-cosines).tolist()
    with pytest.raises(DescriptorFileError, match="but the metric has 4"):
        OfflineReranker(ANY_SIZE, queries, gallery, options, random_metric(DescriptorSizes(4, 3)))


@pytest.mark.parametrize(
    ("sizes", "said"),
    [((6, 3), "descriptors of 5 numbers, but .*gallery.h5 has 6"), ((5, 4), "globals of 3")],
)
def test_files_that_do_not_go_together_are_refused(
    tmp_path: Path, sizes: tuple[int, int], said: str
) -> None:
    queries = written(tmp_path / "queries.h5", (5, 3), "q/q-1")
    gallery = written(tmp_path / "gallery.h5", sizes, "g/g-1")
    with pytest.raises(DescriptorFileError, match=said):
        OfflineReranker(ANY_SIZE, queries, gallery, OPTIONS)


def test_a_checkpoint_that_asks_for_sizes_gets_no_others(tmp_path: Path) -> None:
    queries = written(tmp_path / "queries.h5", (5, 3), "q/q-1")
    gallery = written(tmp_path / "gallery.h5", (5, 3), "g/g-1")
    with pytest.raises(DescriptorFileError, match="but sized has 8"):
        OfflineReranker(load_sized(), queries, gallery, OPTIONS)
