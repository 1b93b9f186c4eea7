"""ELViS and AMES, converted and served, answer with the published code's scores, by any windows."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model.config import AmesConfig, ExtractorId
from model.descriptors import ImageDescriptors
from model.pairs.ames import AmesReranker
from model.reranker import score_windows
from model.windows import Window
from tests.e2e.command import error_of, output_of
from tests.e2e.service import RunningService, ids_of, running, scores_of
from tests.factories import window
from tests.pairs import PAIR_CASES, pair_reference, published_reranker

pytestmark = pytest.mark.slow

TEMPERATURE = 0.1


def logits(service: RunningService, query: ImageDescriptors, ids: list[str]) -> NDArray[np.float64]:
    """As relevance scores tell them."""
    answer = service.rerank(query, ids, alpha=0, temperature=TEMPERATURE)
    scores = scores_of(answer)
    relevance = np.array([scores[image_id] for image_id in ids])
    logits_found: NDArray[np.float64] = np.log(relevance / (1 - relevance)) / TEMPERATURE
    return logits_found


def without_what_is_masked(image: ImageDescriptors) -> ImageDescriptors:
    if image.padding is None:
        return image
    return replace(image, locals=image.locals * ~image.padding[:, None])


@pytest.mark.parametrize("case", PAIR_CASES)
def test_elvis_is_served(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reference = pair_reference(case)
    path = tmp_path / "served.safetensors"
    output = output_of(capsys, "convert", reference.weights, "-o", path)
    assert "elvis, " in output
    assert "up to 600 locals of 48" in output
    item = reference.window
    ids = [f"{n}" for n in range(len(item.gallery))]
    with running(path, tmp_path / "data", store_dtype="float32") as service:
        assert service.register(dict(zip(ids, item.gallery, strict=True))).is_success
        logits_found = logits(service, item.query, ids)
        # Of a gallery image the published code reads a little even of what is behind its mask,
        # which the service does not keep. The published files have zeros there.
        unmasked = [n for n, image in enumerate(item.gallery) if not image.padding.any()]  # type: ignore[union-attr]
        assert unmasked
        np.testing.assert_allclose(logits_found[unmasked], reference.expected[unmasked], atol=1e-4)
        np.testing.assert_allclose(
            1 / (1 + np.exp(-TEMPERATURE * logits_found)),
            1 / (1 + np.exp(-TEMPERATURE * reference.expected)),
            atol=1e-4,
        )
        window_kept = Window(item.query, [without_what_is_masked(image) for image in item.gallery])
        (expected,) = score_windows(reference.reranker(), [window_kept], torch.device("cpu"))
        np.testing.assert_allclose(logits_found, expected, atol=1e-4)


@pytest.mark.parametrize("bits", [None, 12])
def test_ames_is_served_and_windows_do_not_matter(
    bits: int | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    config = AmesConfig(
        name="made-up",
        extractor=ExtractorId(name="made-up", version="1"),
        descriptor_dim=10,
        descriptors_per_image=8,
        dim=16,
        depth=2,
        mlp_dim=20,
        bits=bits,
    )
    network = AmesReranker(config)
    with torch.no_grad():
        network.classifier.weight.mul_(20)
    published = tmp_path / "dinov2_ames.pt"
    torch.save({"state": network.state_dict(), "epoch": 3}, published)
    assert "ames, " in output_of(capsys, "convert", published, "--descriptors", 8)
    path = tmp_path / "dinov2_ames.safetensors"
    item = window(np.random.default_rng(0), config, 23)
    (expected,) = score_windows(published_reranker(published), [item], torch.device("cpu"))
    ids = [f"{n}" for n in range(len(item.gallery))]
    with running(path, tmp_path / "data", store_dtype="float32") as service:
        assert service.register(dict(zip(ids, item.gallery, strict=True))).is_success
        np.testing.assert_allclose(logits(service, item.query, ids), expected, atol=1e-4)
        best_first = [ids[n] for n in np.argsort(-expected, kind="stable")]
        for windows in ({}, {"window": 5, "stride": 1}, {"window": 1, "stride": 1}):
            answer = service.rerank(item.query, ids, alpha=0, **windows)
            assert ids_of(answer) == best_first
        assert answer.json()["usage"]["windows"] == 23


def test_what_cannot_be_converted_leaves_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = pair_reference("elvis").weights
    output = tmp_path / "x.safetensors"

    def wrong(*arguments: object) -> str:
        return error_of(capsys, "convert", *arguments)

    assert "none.pt: no such file" in wrong(tmp_path / "none.pt")
    (tmp_path / "text.pt").write_text("no pickle")
    assert "text.pt: not a readable pickle" in wrong(tmp_path / "text.pt")
    (tmp_path / "other.pt").write_bytes(pickle.dumps({"state": 1}))
    assert "it has no `state`" in wrong(tmp_path / "other.pt")
    assert "--scoring is for LOCORE" in wrong(weights, "-o", output, "--scoring", "max-sum")
    assert "must end in .safetensors" in wrong(weights, "-o", tmp_path / "x.pt")
    assert "no such folder" in wrong(weights, "-o", tmp_path / "nowhere" / "x.safetensors")
    assert list(tmp_path.glob("*.safetensors")) == []
    output_of(capsys, "convert", weights, "-o", output)
    assert "x.json exists already" in wrong(output)
    assert "exists already" in wrong(weights, "-o", output)
    assert "--output is for a .pt file" in wrong(output, "-o", output)
    # A file that was converted tells its sizes again.
    config = output.with_suffix(".json").read_text()
    output_of(capsys, "convert", output, "--force")
    assert output.with_suffix(".json").read_text() == config
