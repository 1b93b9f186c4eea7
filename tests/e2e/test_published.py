"""LOCORE's published weights, converted and served, answer with the published code's scores."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from locore_client import packed_image
from tests.e2e.command import program_error, program_output
from tests.e2e.service import code_of, running, scores_of
from tests.reference import CASES, reference

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("case", CASES)
def test_it_is_served_unchanged(case: str, tmp_path: Path) -> None:
    published = reference(case)
    path = tmp_path / "published.safetensors"
    shutil.copy(published.weights, path)
    sizes = ["--descriptors", published.config.descriptors_per_image, "--attention-heads", 4]
    sizes += ["--attention-window", 32, "--scoring", "max-start"]
    sizes += [] if published.config.global_dim else ["--without-global"]
    assert "weights, " in program_output("convert", path, *sizes)
    assert path.read_bytes() == published.weights.read_bytes()
    assert "exists already" in program_error("convert", path, *sizes)

    expected = 1 / (1 + np.exp(-published.vectors["expected.logit.max-start"].numpy()))
    is_read = published.read("max-start")
    with running(path, tmp_path / "data", store_dtype="float32") as service:
        for row, window in enumerate(published.windows()):
            ids = [f"{row}-{n}" for n in range(len(window.gallery))]
            assert service.register(dict(zip(ids, window.gallery, strict=True))).is_success
            answer = service.rerank(window.query, ids, alpha=0, temperature=1)
            scores = scores_of(answer)
            assert answer.json()["model"] == "published"
            answered = np.array([scores[i] for i in ids])
            np.testing.assert_allclose(
                answered[is_read[row]], expected[row][is_read[row]], atol=1e-4
            )
        stored = service.http.get("/gallery/0-0").json()
        assert stored["mask"] == published.vectors["gallery_local_mask"][0, 0].tolist()
        assert 'kernel="transformers"' in service.http.get("/metrics").text

        many = {f"more-{n}": window.gallery[0] for n in range(published.config.longest_window + 1)}
        assert service.register(many).is_success
        too_long = service.rerank(window.query, list(many), window=len(many))
        assert code_of(too_long) == (422, "validation_error")
        if not published.config.global_dim:
            with_global = {"id": "g", **packed_image(window.query), "global": [1.0, 2.0]}
            assert service.http.post("/gallery", json={"images": [with_global]}).is_success
            assert scores_of(service.rerank(window.query, ["g"])).keys() == {"g"}
