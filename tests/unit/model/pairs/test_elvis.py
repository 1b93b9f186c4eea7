"""ELViS scores pairs as its published code does, and learns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from model.checkpoint import load_checkpoint, save_checkpoint
from model.config import ElvisConfig, ExtractorId
from model.descriptors import ImageDescriptors, normalised
from model.pairs import pair_reranker as pairs
from model.pairs.elvis import ElvisReranker, log_transport
from model.reranker import score_windows
from model.windows import Window
from tests.factories import unit, window
from tests.pairs import PAIR_CASES, pair_reference

CPU = torch.device("cpu")


def config(**changes: object) -> ElvisConfig:
    sizes: dict[str, object] = {
        "name": "elvis",
        "extractor": ExtractorId(name="made-up", version="1"),
        "descriptor_dim": 12,
        "descriptors_per_image": 9,
    }
    return ElvisConfig.model_validate(sizes | changes)


@pytest.mark.parametrize("case", PAIR_CASES)
def test_scores_are_the_published_codes(case: str) -> None:
    """Padding that comes with an image counts, as it does there."""
    reference = pair_reference(case)
    (actual,) = score_windows(reference.reranker(), [reference.window], CPU)
    np.testing.assert_allclose(actual, reference.expected, atol=1e-4)


@pytest.mark.parametrize("bits", [None, 20])
def test_a_score_does_not_depend_on_other_images(bits: int | None) -> None:
    """Nor on windows that share its pass, of other widths and with images of more locals."""
    torch.manual_seed(0)
    reranker = ElvisReranker(config(bits=bits)).eval()
    rng = np.random.default_rng(0)
    short, long = (window(rng, reranker.config, images) for images in (3, 8))
    (alone,) = score_windows(reranker, [short], CPU)
    together, _ = score_windows(reranker, [short, long], CPU)
    np.testing.assert_allclose(together, alone, atol=1e-4)
    singly = [
        score_windows(reranker, [Window(short.query, [image])], CPU)[0][0]
        for image in short.gallery
    ]
    np.testing.assert_allclose(singly, alone, atol=1e-4)


def test_chunks_of_pairs_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    reranker = ElvisReranker(config()).eval()
    wide = window(np.random.default_rng(0), reranker.config, 7)
    (complete,) = score_windows(reranker, [wide], CPU)
    monkeypatch.setattr(pairs, "_CHUNK_NUMBERS", 2 * reranker.numbers(9))
    (in_chunks,) = score_windows(reranker, [wide], CPU)
    np.testing.assert_allclose(in_chunks, complete, atol=1e-4)


@given(
    rows=st.integers(1, 6),
    columns=st.integers(1, 6),
    absent=st.integers(0, 3),
    seed=st.integers(0, 1000),
)
def test_transport_keeps_the_masses(rows: int, columns: int, absent: int, seed: int) -> None:
    """Of columns at any number of iterations, of rows too at many; what is absent gets nothing
    and takes no part."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(1, rows + 1, columns + 1, generator=generator)
    query, gallery = (torch.ones(1, count, dtype=torch.bool) for count in (rows, columns))
    plan = log_transport(scores, query, gallery, 3).exp()
    masses = torch.tensor([1.0] * columns + [rows])
    torch.testing.assert_close(plan.sum(1)[0], masses, atol=1e-4, rtol=1e-4)
    settled = log_transport(scores, query, gallery, 200).exp()
    masses = torch.tensor([1.0] * rows + [columns])
    torch.testing.assert_close(settled.sum(2)[0], masses, atol=1e-3, rtol=1e-3)

    wider = torch.full((1, rows + absent + 1, columns + absent + 1), -1e4)
    down, across = (torch.tensor([*range(n), n + absent]) for n in (rows, columns))
    wider[0, down[:, None], across] = scores[0]
    query, gallery = (F.pad(mask, (0, absent)) for mask in (query, gallery))
    among = log_transport(wider, query, gallery, 3).exp()
    torch.testing.assert_close(among[:, down][:, :, across], plan)
    assert float(among.sum()) == pytest.approx(float(plan.sum()), rel=1e-5)


@pytest.mark.slow
def test_it_learns_and_its_checkpoint_comes_back(tmp_path: Path) -> None:
    """Relevant images share a few of the query's locals. Votes order them, not `g`."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    reranker = ElvisReranker(config(descriptor_dim=32, descriptors_per_image=16))

    def image(shared: ImageDescriptors | None) -> ImageDescriptors:
        locals_ = unit(rng, 16, 32)
        if shared is not None:
            noise = 0.05 * rng.standard_normal((6, 32)).astype(np.float32)
            locals_[:6] = normalised(shared.locals[:6] + noise, "made up")
        return ImageDescriptors(locals_, np.zeros(16, np.uint8))

    def labelled() -> tuple[Window, torch.Tensor]:
        query = image(None)
        relevant = np.arange(16) % 4 == 0
        gallery = [image(query if is_relevant else None) for is_relevant in relevant]
        return Window(query, gallery), torch.from_numpy(relevant)

    optimizer = torch.optim.AdamW(reranker.parameters(), lr=5e-3)
    for step in range(80):
        item, relevant = labelled()
        # A window of padding beside it must not turn gradients into NaN.
        batch = reranker.collate([item, Window(item.query, item.gallery[:1])])
        logits, mask = reranker.train()(batch)
        scores = reranker.image_scores(logits, mask)[0]
        F.binary_cross_entropy_with_logits(scores, relevant.float()).backward()
        if step == 0:
            gradients = {name: p.grad for name, p in reranker.named_parameters()}
            assert all(g is not None and bool(g.isfinite().all()) for g in gradients.values())
        torch.nn.utils.clip_grad_norm_(reranker.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    item, relevant = labelled()
    (actual,) = score_windows(reranker.eval(), [item], CPU)
    assert actual[relevant.numpy()].min() > actual[~relevant.numpy()].max()
    save_checkpoint(reranker, tmp_path / "learnt.safetensors")
    loaded = load_checkpoint(tmp_path / "learnt.safetensors", CPU)
    np.testing.assert_array_equal(score_windows(loaded.reranker, [item], CPU)[0], actual)
