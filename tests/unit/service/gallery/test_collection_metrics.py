"""Which metrics a service takes, and what it says of images that they are not for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model.config import LongformerConfig
from model.descriptors import DescriptorSizes, ImageDescriptors
from model.learnt_metric import MetricError
from service.api.errors import DescriptorDimMismatchError, UnprocessableError
from service.gallery.collection_metrics import in_metric, load_metrics
from service.settings import Settings
from tests.any_size import CONFIG
from tests.factories import unit
from tests.metric_files import MADE_UP, random_metric, write_metric

SIZES = DescriptorSizes(8, 12)
METRIC = random_metric(SIZES)


def image(local_dim: int, global_dim: int) -> ImageDescriptors:
    rng = np.random.default_rng(0)
    return ImageDescriptors(
        unit(rng, 2, local_dim), np.zeros(2, np.uint8), unit(rng, 1, global_dim)[0]
    )


def test_metrics_are_loaded_by_collection(tmp_path: Path) -> None:
    paths = {name: tmp_path / f"{name}.safetensors" for name in ("shop", "archive")}
    for path in paths.values():
        write_metric(path, SIZES)
    assert load_metrics(paths, CONFIG).keys() == paths.keys()
    with pytest.raises(MetricError, match="no such file"):
        load_metrics({"shop": tmp_path / "none"}, CONFIG)


def test_a_checkpoint_that_cannot_read_the_metrics_images_is_refused(tmp_path: Path) -> None:
    """The global is longer in the metric than the checkpoint asks for."""
    path = tmp_path / "shop.safetensors"
    write_metric(path, SIZES)
    config = LongformerConfig(
        name="locore",
        extractor=MADE_UP,
        descriptor_dim=8,
        global_dim=12,
        project_locals=True,
        project_global=True,
    )
    with pytest.raises(MetricError, match="a global of 20 numbers, but locore needs 12"):
        load_metrics({"shop": path}, config)
    without_global = config.model_copy(update={"global_dim": 0})
    assert load_metrics({"shop": path}, without_global)["shop"].sizes == SIZES


def test_an_image_of_other_sizes_is_refused_by_field_or_id() -> None:
    whose = "the metric of collection 'x'"
    with pytest.raises(DescriptorDimMismatchError, match="but the metric of coll") as caught:
        in_metric(image(8, 13), METRIC, whose, "query")
    assert caught.value.details == {"field": "query.global", "expected": 12, "found": 13}
    with pytest.raises(DescriptorDimMismatchError) as caught:
        in_metric(image(9, 12), METRIC, whose, image_id="a")
    assert caught.value.details == {
        "field": "gallery_ids",
        "expected": 8,
        "found": 9,
        "id": "a",
    }


def test_an_image_whose_locals_have_no_mean_is_refused() -> None:
    row = unit(np.random.default_rng(0), 1, 8)
    opposite = ImageDescriptors(np.vstack((row, -row)), np.zeros(2, np.uint8), image(8, 12).global_)
    with pytest.raises(UnprocessableError) as caught:
        in_metric(opposite, METRIC, "the metric", image_id="a")
    assert (caught.value.code, caught.value.details["id"]) == ("invalid_descriptors", "a")


def test_without_a_metric_an_image_stays() -> None:
    some = image(3, 4)
    assert in_metric(some, None, "nobody's") is some


def test_the_setting_is_a_text_or_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCORE_METRICS", "shop=a.safetensors,x=y=/b c/d.safetensors")
    paths = {"shop": Path("a.safetensors"), "x=y": Path("/b c/d.safetensors")}
    assert Settings().metrics == paths
    assert Settings(metrics=("shop=b", "other=c")).metrics == {
        "shop": Path("b"),
        "other": Path("c"),
    }


@pytest.mark.parametrize("text", ["shop", "=a", "shop=", "shop=a,,", "shop=a,shop=b"])
def test_what_is_no_pair_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("LOCORE_METRICS", text)
    with pytest.raises(ValueError, match=r"is not COLLECTION=FILE|has one metric"):
        Settings()
