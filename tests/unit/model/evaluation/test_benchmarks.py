"""The published benchmarks, on made-up files in their formats."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from model.checkpoint import LoadedModel, load_checkpoint
from model.config_file import write_config
from model.evaluation.benchmark_data import BenchmarkData
from model.evaluation.benchmarks import BENCHMARKS, files
from model.evaluation.passes import (
    ensembled,
    passes,
    reranked,
    window_logits,
)
from model.formats.format_error import FormatError
from model.reranker import score_windows
from model.windows import RerankOptions, Window
from tests.factories import load_tiny, tiny_config
from tests.minibench import Images, as_tensor, made_up, nearest, write_list, write_pickle
from tests.reference import reference

CONFIG = tiny_config()
OPTIONS = RerankOptions(0.5, 1.0, window=6, stride=3, direction="end-to-start")


def names(benchmark: str, **options: object) -> list[str]:
    spec = BENCHMARKS[benchmark]
    paths = files(spec, Path("D"), **options)  # type: ignore[arg-type]
    return [str(path) for path in paths.needed(spec)]


def test_files_are_where_the_published_code_has_them() -> None:
    assert names("roxford5k+1m") == [
        "D/roxford5k/dinov2_query_local.hdf5",
        "D/roxford5k/dinov2_query_global.pt",
        "D/roxford5k+1m/dinov2_gallery_local.hdf5",
        "D/roxford5k+1m/dinov2_gallery_global.pt",
        "D/roxford5k+1m/nn_dinov2.pkl",
        "D/roxford5k/gnd_roxford5k.pkl",
    ]
    assert names("gldv2", descriptor_name="cvnet", neighbours=Path("mine.pkl")) == [
        "D/gldv2-test/cvnet_local.hdf5",
        "D/gldv2-test/cvnet_global.pt",
        "D/gldv2-index/cvnet_local.hdf5",
        "D/gldv2-index/cvnet_global.pt",
        "mine.pkl",
        "D/gldv2-test/gnd_gldv2-test.pkl",
    ]
    assert names("sop", with_globals=False) == [
        "D/sop/dinov2_gallery_local.hdf5",
        "D/sop/nn_dinov2.pkl",
        "D/sop/test_gallery.txt",
    ]
    assert "D/inshop/test_query.txt" in names("inshop")
    assert "D/inshop/dinov2_query_global.pt" in names("inshop")


def test_every_missing_file_is_named_at_once(tmp_path: Path) -> None:
    write_pickle(tmp_path / "sop" / "nn_dinov2.pkl", [])
    benchmark = BENCHMARKS["sop"]
    with pytest.raises(FormatError) as caught:
        BenchmarkData(benchmark, files(benchmark, tmp_path), CONFIG)
    message = str(caught.value)
    for name in ("dinov2_gallery_local.hdf5", "dinov2_gallery_global.pt", "test_gallery.txt"):
        assert message.count(str(tmp_path / "sop" / name)) == 1
    assert "nn_dinov2" not in message


# Labels of a gallery that asks itself; image 5 has nobody.
LABELS = [0, 0, 1, 1, 1, 2]


@pytest.fixture
def sop(tmp_path: Path) -> tuple[Path, Images]:
    images = made_up(np.random.default_rng(0), LABELS, CONFIG)
    images.write(tmp_path / "sop", "dinov2_gallery")
    write_list(tmp_path / "sop" / "test_gallery.txt", LABELS, len(LABELS))
    write_pickle(tmp_path / "sop" / "nn_dinov2.pkl", as_tensor(nearest(images, images, 6)))
    return tmp_path, images


def open_sop(data: Path) -> BenchmarkData:
    benchmark = BENCHMARKS["sop"]
    return BenchmarkData(benchmark, files(benchmark, data), CONFIG)


def test_a_query_is_left_out_of_its_own_list(sop: tuple[Path, Images]) -> None:
    data, images = sop
    neighbours = nearest(images, images, 6)
    lists = neighbours[:, :, :5].copy()
    lists[:, 2] = neighbours[:, 2, 1:]
    write_pickle(data / "sop" / "nn_dinov2.pkl", lists)
    with open_sop(data) as data_set:
        (one,) = passes(data_set)
    assert one.queries.tolist() == [0, 1, 2, 3, 4]
    for query in range(6):
        own = query not in lists[1, query]
        assert one.lists.lengths[query] == (5 if own else 4)
        assert query not in one.lists.images[query, : one.lists.lengths[query]]
        others = [place for place in lists[1, query] if place != query]
        assert one.lists.images[query, : len(others)].tolist() == others


def test_only_the_top_of_a_list_is_reordered(sop: tuple[Path, Images], tmp_path: Path) -> None:
    model = load_tiny(tmp_path)
    with open_sop(sop[0]) as data_set:
        (one,) = passes(data_set)
        ranking = reranked(data_set, one.lists, [0, 3], model, OPTIONS, top=3)
        complete = reranked(data_set, one.lists, one.queries, model, OPTIONS, top=100)
    for query in range(6):
        before = one.lists.images[query].tolist()
        assert sorted(ranking[query, :3]) == sorted(before[:3])
        assert ranking[query, 3:].tolist() == before[3:]
        if query not in (0, 3):
            assert ranking[query].tolist() == before
        # The query, last on its own list, is never scored.
        assert complete[query, 5] == query


def test_images_without_descriptors_go_behind_those_that_are_scored(
    sop: tuple[Path, Images], tmp_path: Path
) -> None:
    """As `locore extract --list` leaves what it could not read."""
    data, _ = sop
    model = load_tiny(tmp_path)
    with open_sop(data) as data_set:
        (one,) = passes(data_set)
        before = reranked(data_set, one.lists, one.queries, model, OPTIONS, top=5)
    with h5py.File(data / "sop" / "dinov2_gallery_local.hdf5", "r+") as file:
        file["features"][4] = 0
        file["features"][4, :, 3] = 1
    with open_sop(data) as data_set:
        (one,) = passes(data_set)
        after = reranked(data_set, one.lists, one.queries, model, OPTIONS, top=5)
        logits = window_logits(data_set, one.lists, one.queries, model, window=5)
    assert after[4].tolist() == one.lists.images[4].tolist()
    assert np.isnan(logits[4]).all()
    for query in (0, 1, 2, 3):
        assert after[query, 4] == 4
        assert sorted(after[query]) == sorted(before[query])
        assert np.isnan(logits[query]).sum() == 1
        assert ensembled(one.lists, logits, 0.5, 1.0)[query, 4] == 4


def test_the_longformer_reads_what_it_was_trained_on(tmp_path: Path) -> None:
    """LOCORE's own, without globals: no files of globals are needed."""
    published = reference("local_only", scoring="max-end")
    weights = tmp_path / "published.safetensors"
    shutil.copy(published.weights, weights)
    write_config(published.config, weights)
    model = load_checkpoint(weights, torch.device("cpu"))
    sizes = (published.config.descriptor_dim, 12)
    images = made_up(np.random.default_rng(0), LABELS, model.config, sizes)
    folder = tmp_path / "sop"
    images.write(folder, "dinov2_gallery")
    (folder / "dinov2_gallery_global.pt").unlink()
    write_list(folder / "test_gallery.txt", LABELS, len(LABELS))
    write_pickle(folder / "nn_dinov2.pkl", nearest(images, images, 6))
    benchmark = BENCHMARKS["sop"]
    paths = files(benchmark, tmp_path, with_globals=False)
    with BenchmarkData(benchmark, paths, model.config) as data_set:
        (one,) = passes(data_set)
        ranking = reranked(data_set, one.lists, [2], model, OPTIONS, top=4)
    query, *gallery = [
        replace(images.described(place, model.config.descriptors_per_image), global_=None)
        for place in (2, *one.lists.images[2, :4].tolist())
    ]
    (logits,) = score_windows(model.reranker, [Window(query, gallery)], model.device)
    scores = 0.5 * one.lists.similarities[2, :4] + 0.5 / (1 + np.exp(-logits.astype(np.float64)))
    assert ranking[2, :4].tolist() == one.lists.images[2, :4][np.argsort(-scores)].tolist()


def test_files_at_odds_with_each_other_are_said(sop: tuple[Path, Images]) -> None:
    data, images = sop
    write_pickle(data / "sop" / "nn_dinov2.pkl", nearest(images, images, 6)[:, :5])
    with pytest.raises(FormatError, match=r"nn_dinov2\.pkl: lists of 5 queries, but there are 6"):
        open_sop(data)
    write_list(data / "sop" / "test_gallery.txt", LABELS[:5], 5)
    with pytest.raises(FormatError, match=r"5 lines, but .*_local\.hdf5 has 6 images"):
        open_sop(data)
    write_list(data / "sop" / "test_gallery.txt", None, 6)
    with pytest.raises(FormatError, match=r"test_gallery\.txt: has no labels"):
        open_sop(data)
    write_list(data / "sop" / "test_gallery.txt", list(range(6)), 6)
    with pytest.raises(FormatError, match="no query has a relevant image"):
        open_sop(data)
    with (data / "sop" / "dinov2_gallery_global.pt").open("ab") as file:
        file.write(b"1234")
    with pytest.raises(FormatError, match="are no 6 rows of float32"):
        open_sop(data)


def open_roxford(data: Path, truths: list[dict[str, object]]) -> BenchmarkData:
    rng = np.random.default_rng(0)
    queries, gallery = made_up(rng, [0, 1], CONFIG), made_up(rng, [0, 1, 0, 1, 0], CONFIG)
    folder = data / "roxford5k"
    queries.write(folder, "dinov2_query")
    gallery.write(folder, "dinov2_gallery")
    lists = np.array([[[5, 4, 3, 2, 1]] * 2, [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0]]], np.float32)
    write_pickle(folder / "nn_dinov2.pkl", lists)
    write_pickle(folder / "gnd_roxford5k.pkl", {"gnd": truths}, protocol=2)
    benchmark = BENCHMARKS["roxford5k"]
    return BenchmarkData(benchmark, files(benchmark, data), CONFIG)


def test_junk_goes_behind_and_for_hard_what_is_easy_too(tmp_path: Path) -> None:
    graded: list[dict[str, object]] = [
        {"easy": [2], "hard": [4], "junk": [0]},
        {"easy": [3], "hard": [], "junk": [4]},
    ]
    with open_roxford(tmp_path, graded) as data_set:
        others, hard = passes(data_set)
    assert [p.name for p in others.protocols] == ["easy", "medium"]
    assert [p.name for p in hard.protocols] == ["hard"]
    assert others.lists.images.tolist() == [[1, 2, 3, 4, 0], [3, 2, 1, 0, 4]]
    assert others.lists.similarities[0].tolist() == [4, 3, 2, 1, 5]
    assert hard.lists.images.tolist() == [[1, 3, 4, 0, 2], [2, 1, 0, 4, 3]]
    # The second query has nothing hard: it is not re-ranked for that.
    assert hard.queries.tolist() == [0]


def test_a_ground_truth_of_another_benchmark_is_said(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="not every query has `easy` and `hard`"):
        open_roxford(tmp_path, [{"ok": [2]}, {"ok": [1]}])
    with pytest.raises(FormatError, match=r"1 queries, but .* has 2 images"):
        open_roxford(tmp_path, [{"easy": [2], "hard": [], "junk": []}])


def test_a_list_without_anything_to_score_stays(tmp_path: Path) -> None:
    model: LoadedModel = load_tiny(tmp_path)
    images = made_up(np.random.default_rng(0), [0, 0], CONFIG)
    images.write(tmp_path / "sop", "dinov2_gallery")
    write_list(tmp_path / "sop" / "test_gallery.txt", [0, 0], 2)
    lists = np.array([[[1.0], [1.0]], [[0], [1]]])
    write_pickle(tmp_path / "sop" / "nn_dinov2.pkl", lists)
    with open_sop(tmp_path) as data_set:
        (one,) = passes(data_set)
        assert one.lists.lengths.tolist() == [0, 0]
        assert reranked(data_set, one.lists, one.queries, model, OPTIONS, 9).tolist() == [[0], [1]]
