"""The checkpoint `small`, by name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from model.config import ExtractorId
from model.descriptors import DescriptorSizes
from model.scoring import ensemble
from tests.descriptor_files import write_descriptors
from tests.e2e.command import error_of, stdout_of
from tests.e2e.service import RunningService, code_of, running, scores_of
from tests.factories import image, tiny_config
from tests.small import reference


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    data = tmp_path_factory.mktemp("data")
    with running(Path("small"), data, store_dtype="float32") as started:
        yield started


def test_it_is_served_with_its_former_scores(service: RunningService) -> None:
    info = service.http.get("/info").json()
    assert (info["model"]["name"], info["sizes"]) == ("small", {"local": 128, "global": 512})
    for place, (window, expected) in enumerate(reference()):
        images = {f"{place}-{n}": i for n, i in enumerate(window.gallery)}
        assert service.register(images).is_success
        scores = scores_of(service.rerank(window.query, list(images), alpha=0, temperature=0.1))
        np.testing.assert_allclose(
            [scores[i] for i in images], ensemble(expected, None, 0, 0.1), atol=1e-4
        )


@pytest.mark.parametrize(
    ("sizes", "part", "expected"),
    [(DescriptorSizes(64, 512), "descriptors", 128), (DescriptorSizes(128, 256), "global", 512)],
)
def test_other_sizes_are_refused(
    service: RunningService, sizes: DescriptorSizes, part: str, expected: int
) -> None:
    other = image(np.random.default_rng(0), tiny_config(), sizes=sizes)
    fitting = image(np.random.default_rng(0), tiny_config(), sizes=DescriptorSizes(128, 512))
    assert service.register({"fits": fitting}, collection="sizes").is_success
    for answer, where in (
        (service.register({"other": other}, collection="others"), "images.0"),
        (service.rerank(other, ["fits"], collection="sizes"), "query"),
    ):
        assert code_of(answer) == (422, "descriptor_dim_mismatch")
        details = answer.json()["error"]["details"]
        assert (details["field"], details["expected"]) == (f"{where}.{part}", expected)


def test_it_is_evaluated_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids = [f"{n}.jpg@{view}" for n in range(4) for view in range(4)]
    lite0 = ExtractorId(name="efficientnet-lite0", version="fb84f26678f4")
    views = tmp_path / "views.h5"
    write_descriptors(views, ids, sizes=(128, 512), extractor=lite0)
    for name in ("small", "relations"):
        output = stdout_of(capsys, "eval", "views", "--descriptors", views, "--checkpoint", name)
        assert f"{name} " in output
    write_descriptors(tmp_path / "other.h5", ids, sizes=(64, 512))
    other = ["eval", "views", "--descriptors", tmp_path / "other.h5", "--checkpoint", "small"]
    assert "64 dimensions, but small takes 128" in error_of(capsys, *other)


@pytest.mark.parametrize("command", ["serve", "eval", "bench"])
def test_an_unknown_name_is_one_line(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    more = {"eval": ["sample"], "bench": ["model"]}.get(command, [])
    line = error_of(capsys, command, *more, "--checkpoint", "large")
    assert "'large' is not a shipped checkpoint (relations, small)" in line
