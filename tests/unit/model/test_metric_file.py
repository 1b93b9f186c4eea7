"""A metric as a file, and applied to images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from model.descriptors import DescriptorSizes, ImageDescriptors, InvalidDescriptorsError
from model.learnt_metric import (
    Metric,
    MetricError,
    described,
    fit_metric,
    learnt_metric,
    load_metric,
    save_metric,
)
from tests.factories import unit
from tests.metric_files import MADE_UP, random_metric, write_metric

SIZES = DescriptorSizes(3, 4)


def image(rng: np.random.Generator, sizes: DescriptorSizes = SIZES) -> ImageDescriptors:
    rows = int(rng.integers(1, 5))
    global_ = None if sizes.global_dim is None else unit(rng, 1, sizes.global_dim)[0]
    return ImageDescriptors(unit(rng, rows, sizes.local_dim), np.zeros(rows, np.uint8), global_)


@given(st.integers(0, 2**31))
def test_the_plain_cosine_of_what_it_gives_is_the_cosine_in_the_metric(seed: int) -> None:
    rng = np.random.default_rng(seed)
    metric, images = random_metric(SIZES, seed), [image(rng), image(rng)]
    one, other = (metric.apply(im).global_ for im in images)
    assert one is not None
    assert other is not None
    assert one.shape == (metric.applied_sizes.global_dim,) == (7,)
    # In closed form: x M Mᵀ y, over the lengths of x and y in it.
    x, y = described(images)
    product = metric.matrix.astype(np.float64) @ metric.matrix.T.astype(np.float64)
    cosine = (x @ product @ y) / np.sqrt((x @ product @ x) * (y @ product @ y))
    assert float(one @ other) == pytest.approx(cosine, abs=1e-5)
    assert np.linalg.norm(one) == pytest.approx(1, abs=1e-6)


def test_all_but_the_global_stays() -> None:
    rng = np.random.default_rng(0)
    some = image(rng)
    holed = replace(
        some,
        locals=np.vstack((some.locals, np.zeros((1, 3), np.float32))).astype(np.float16),
        scales=np.append(some.scales, np.uint8(2)),
        padding=np.append(np.zeros(some.count, np.bool_), True),
    )
    applied = random_metric(SIZES).apply(holed)
    assert applied.locals is holed.locals
    assert applied.scales is holed.scales
    assert applied.padding is holed.padding


def test_an_image_without_a_global_stays_without_one() -> None:
    bare = image(np.random.default_rng(0), DescriptorSizes(3, None))
    assert random_metric(SIZES).apply(bare) is bare


@pytest.mark.parametrize("lengths", [(2, 4), (3, 5), (2, None)])
def test_other_sizes_are_refused(lengths: tuple[int, int | None]) -> None:
    other = image(np.random.default_rng(0), DescriptorSizes(*lengths))
    with pytest.raises(ValueError, match="but the metric is for"):
        random_metric(SIZES).apply(other)


def test_locals_without_a_mean_are_refused() -> None:
    row = unit(np.random.default_rng(0), 1, 3)
    global_ = unit(np.random.default_rng(1), 1, 4)[0]
    opposite = ImageDescriptors(np.vstack((row, -row)), np.zeros(2, np.uint8), global_)
    with pytest.raises(InvalidDescriptorsError, match="means of the locals"):
        random_metric(SIZES).apply(opposite)


def test_a_file_comes_back_as_it_went(tmp_path: Path) -> None:
    path = tmp_path / "shop.metric.safetensors"
    for seed in range(2):
        metric = replace(random_metric(SIZES, seed), learnt_from="40 labels, ü")
        save_metric(metric, path)
        applied = load_metric(path)
        np.testing.assert_array_equal(applied.matrix, metric.matrix)
        assert (applied.sizes, applied.extractor, applied.learnt_from) == (
            SIZES,
            MADE_UP,
            "40 labels, ü",
        )
    assert list(tmp_path.iterdir()) == [path]


def test_a_fitted_metric_is_that_of_its_teachers() -> None:
    rng = np.random.default_rng(0)
    images, classes = [image(rng) for _ in range(12)], np.arange(12) // 3
    metric = fit_metric([(images, classes)], MADE_UP, "labels")
    np.testing.assert_array_equal(metric.matrix, learnt_metric([(images, classes)]))
    assert metric.sizes == SIZES
    other = image(rng, DescriptorSizes(3, 5))
    with pytest.raises(ValueError, match="of one size, not of 2"):
        fit_metric([(images, classes), ([other, other], np.zeros(2, np.int64))], MADE_UP, "")


def test_a_metric_is_of_its_sizes_and_finite() -> None:
    good = random_metric(SIZES)
    for matrix, sizes, message in (
        (good.matrix[:6, :6], SIZES, r"need \(7, 7\)"),
        (good.matrix, DescriptorSizes(3, None), "images with globals"),
        (good.matrix * np.float32("nan"), SIZES, "NaN or infinity"),
    ):
        with pytest.raises(ValueError, match=message):
            Metric(matrix, sizes, MADE_UP, "")


def test_a_file_that_is_no_metric_is_named(tmp_path: Path) -> None:
    path = tmp_path / "some.safetensors"
    fields = {"extractor": "x", "extractor_version": "1", "learnt_from": ""}
    good = {"metric": random_metric(SIZES).matrix}
    lengths = {"local_dim": "3", "global_dim": "4"}
    for tensors, metadata, message in (
        (good, {}, "no metric"),
        ({"other": good["metric"]}, fields | lengths, "no metric"),
        (good, fields, "local_dim"),
        (good, fields | {"local_dim": "three", "global_dim": "4"}, "three"),
        (good, fields | {"local_dim": "4", "global_dim": "4"}, r"need \(8, 8\)"),
    ):
        save_file(tensors, path, metadata=metadata)
        with pytest.raises(MetricError, match=rf"some\.safetensors: .*{message}"):
            load_metric(path)
    with pytest.raises(MetricError, match="no such file"):
        load_metric(tmp_path / "none")


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "some.safetensors"
    write_metric(path, SIZES)
    content = path.read_bytes()
    for data in (b"", content[:5], content[:100], content[:-1]):
        path.write_bytes(data)
        with pytest.raises(MetricError, match=r"some\.safetensors: not a readable"):
            load_metric(path)
