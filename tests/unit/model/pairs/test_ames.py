"""AMES scores pairs as its paper's network does, written plainly here: token by token, each over
the tokens that it attends to, without masks or padding."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model.config import AmesConfig, ExtractorId
from model.descriptors import ImageDescriptors
from model.pairs import pair_reranker as pairs
from model.pairs.ames import AmesReranker
from model.reranker import score_windows
from model.windows import Window
from tests.factories import window

CPU = torch.device("cpu")
Array = NDArray[np.float64]


def ames(**changes: object) -> AmesReranker:
    """With random weights that make scores differ."""
    sizes: dict[str, object] = {
        "name": "ames",
        "extractor": ExtractorId(name="made-up", version="1"),
        "descriptor_dim": 10,
        "descriptors_per_image": 7,
        "dim": 16,
        "depth": 2,
        "mlp_dim": 24,
    }
    torch.manual_seed(0)
    reranker = AmesReranker(AmesConfig.model_validate(sizes | changes)).eval()
    with torch.no_grad():
        for parameter in reranker.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return reranker


class Plain:
    """The network of `reranker`, by the names of its tensors, for one pair of images."""

    def __init__(self, reranker: AmesReranker) -> None:
        self.config = reranker.config
        self.tensors = {n: t.double().numpy() for n, t in reranker.state_dict().items()}

    def linear(self, name: str, x: Array) -> Array:
        y: Array = x @ self.tensors[f"{name}.weight"].T + self.tensors[f"{name}.bias"]
        return y

    def norm(self, name: str, x: Array) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        y: Array = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        y = y * self.tensors[f"{name}.weight"] + self.tensors[f"{name}.bias"]
        return y

    def projected(self, locals_: NDArray[np.floating]) -> Array:
        x = locals_.astype(np.float64)
        if self.config.bits:
            x = np.sign(x @ self.tensors["remap_local.0.W"])
            return self.norm("remap_local.2", self.linear("remap_local.1", x))
        return self.norm("remap_local.1", self.linear("remap_local.0", x))

    def attended(self, name: str, x: Array, attended: list[list[int]]) -> Array:
        """`read`: the tokens that each token attends to."""
        weight, bias = (self.tensors[f"{name}.in_proj_{part}"] for part in ("weight", "bias"))
        q, k, v = np.split(x @ weight.T + bias, 3, axis=1)
        heads, size = self.config.attention_heads, x.shape[1] // self.config.attention_heads
        out = np.empty_like(x)
        for token, keys in enumerate(attended):
            for head in range(heads):
                part = slice(head * size, (head + 1) * size)
                scores = k[keys, part] @ q[token, part] / np.sqrt(size)
                shares = np.exp(scores - scores.max())
                out[token, part] = shares / shares.sum() @ v[keys, part]
        return self.linear(f"{name}.out_proj", out)

    def score(self, query: ImageDescriptors, image: ImageDescriptors) -> float:
        first = self.projected(query.without_padding().locals)
        second = self.projected(image.without_padding().locals)
        if not self.config.bits:
            second = second.astype(np.float16).astype(np.float64)
        x = np.vstack((self.tensors["mtc_token"], first, second))
        everyone = list(range(len(x)))
        own = [everyone[1 : 1 + len(first)], everyone[1 + len(first) :]]
        within = [everyone] + [[0, *side] for side in own for _ in side]
        across = [everyone] + [
            [0, *other] for side, other in zip(own, own[::-1], strict=True) for _ in side
        ]
        for layer in range(self.config.depth):
            name = f"decoder.layers.{layer}"
            x = self.norm(f"{name}.norm1", x + self.attended(f"{name}.self_attn", x, within))
            x = self.norm(f"{name}.norm2", x + self.attended(f"{name}.cross_attn", x, across))
            hidden = np.maximum(self.linear(f"{name}.linear1", x), 0)
            x = self.norm(f"{name}.norm3", x + self.linear(f"{name}.linear2", hidden))
        return float(self.linear("classifier", x[0])[0])


def with_padding(image: ImageDescriptors, rows: int) -> ImageDescriptors:
    """`rows` more behind a mask, of numbers that must not count."""
    return replace(
        image,
        locals=np.vstack((image.locals, np.ones((rows, image.locals.shape[1]), np.float32))),
        scales=np.append(image.scales, np.zeros(rows, np.uint8)),
        padding=np.arange(image.count + rows) >= image.count,
    )


@pytest.mark.parametrize(
    "sizes", [{}, {"bits": 12}, {"depth": 3, "attention_heads": 4}, {"dim": 8, "mlp_dim": 6}]
)
def test_scores_are_the_plain_networks(sizes: dict[str, int]) -> None:
    """Alone or in one pass with other windows, with padding or without."""
    reranker = ames(**sizes)
    plain = Plain(reranker)
    rng = np.random.default_rng(0)
    windows = [window(rng, reranker.config, images) for images in (3, 6)]
    expected = [[plain.score(w.query, image) for image in w.gallery] for w in windows]
    assert np.ptp(expected[1]) > 0.1
    actual = score_windows(reranker, windows, CPU)
    for scores, right in zip(actual, expected, strict=True):
        np.testing.assert_allclose(scores, right, atol=1e-4)
    padded = Window(
        with_padding(windows[0].query, 2), [with_padding(i, 1) for i in windows[0].gallery]
    )
    few = replace_count(reranker, 9)
    np.testing.assert_allclose(score_windows(few, [padded], CPU)[0], expected[0], atol=1e-4)


def replace_count(reranker: AmesReranker, descriptors: int) -> AmesReranker:
    """The same network, which reads so many rows of an image."""
    wider = ames(**reranker.config.model_dump() | {"descriptors_per_image": descriptors})
    wider.load_state_dict(reranker.state_dict())
    return wider


def test_a_gallery_is_rounded_as_published() -> None:
    """To float16, and the query is not."""
    reranker = ames()
    item = window(np.random.default_rng(1), reranker.config, 5)
    (actual,) = score_windows(reranker, [item], CPU)
    unrounded = ames()
    unrounded.train()
    with torch.inference_mode():
        logits = unrounded.image_logits(unrounded.collate([item]))[0].numpy()
    assert 1e-6 < np.abs(actual - logits).max() < 1e-2


def test_chunks_of_pairs_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    reranker = ames()
    item = window(np.random.default_rng(0), reranker.config, 7)
    (complete,) = score_windows(reranker, [item], CPU)
    monkeypatch.setattr(pairs, "_CHUNK_NUMBERS", 3 * reranker.numbers(7))
    (in_chunks,) = score_windows(reranker, [item], CPU)
    np.testing.assert_allclose(in_chunks, complete, atol=1e-4)
