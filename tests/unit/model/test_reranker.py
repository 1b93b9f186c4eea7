"""Scores depend on a window's images and on nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.batch import Window
from model.checkpoint import load_checkpoint
from model.config import DEFAULT_CHECKPOINT
from model.descriptors import ImageDescriptors
from model.metric import described
from model.neighbours import likeness
from model.reranker import MambaReranker, aggregate, random_image, score_windows
from model.tokens import correlate, correlation_features
from tests.factories import image, tiny_config, tiny_model, window

CPU = torch.device("cpu")
CONFIG = tiny_config()
MODEL = tiny_model()


@settings(max_examples=40)
@given(sizes=st.lists(st.integers(1, 9), min_size=2, max_size=5), seed=st.integers(0, 2**31))
def test_padding_and_company_do_not_change_a_score(sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    windows = [window(rng, CONFIG, images) for images in sizes]
    together = score_windows(MODEL, windows, CPU)
    for one, scores in zip(windows, together, strict=True):
        (alone,) = score_windows(MODEL, [one], CPU)
        np.testing.assert_allclose(scores, alone, atol=1e-4)


@settings(max_examples=20)
@given(seed=st.integers(0, 2**31))
def test_images_of_a_list_inform_each_other(seed: int) -> None:
    rng = np.random.default_rng(seed)
    whole = window(rng, CONFIG, 6)
    (scores,) = score_windows(MODEL, [whole], CPU)
    (fewer,) = score_windows(MODEL, [Window(whole.query, whole.gallery[:-1])], CPU)
    assert np.abs(scores[:-1] - fewer).max() > 1e-4


@settings(max_examples=20)
@given(seed=st.integers(0, 2**31))
def test_the_callers_order_does_not_change_a_score(seed: int) -> None:
    rng = np.random.default_rng(seed)
    one = window(rng, CONFIG, 8)
    order = rng.permutation(8)
    (scores,) = score_windows(MODEL, [one], CPU)
    (moved,) = score_windows(MODEL, [Window(one.query, [one.gallery[i] for i in order])], CPU)
    np.testing.assert_allclose(moved, scores[order], atol=1e-4)


def test_the_query_in_its_own_gallery_scores_the_same_in_any_company() -> None:
    """All its locals match perfectly there, so rounding must not choose among them."""
    rng = np.random.default_rng(9)
    query = image(rng, CONFIG)
    one = Window(query, [query, image(rng, CONFIG), image(rng, CONFIG)])
    (alone,) = score_windows(MODEL, [one], CPU)
    for images in (1, 7, 30):
        together = score_windows(MODEL, [window(rng, CONFIG, images), one], CPU)
        np.testing.assert_allclose(together[1], alone, atol=1e-4)


@pytest.mark.parametrize("images", [2, 5, 20])
def test_near_duplicates_score_the_same_in_any_company(images: int) -> None:
    """What hardly differs is standardised over the list, and rounding with it."""
    shipped = load_checkpoint(DEFAULT_CHECKPOINT, CPU)
    rng = np.random.default_rng(images)
    centre = random_image(rng, shipped.config)
    assert centre.global_ is not None
    global_, locals_ = centre.global_, centre.locals

    def near() -> ImageDescriptors:
        moved = (v + 0.01 * rng.standard_normal(v.shape) for v in (locals_, global_))
        rows, whole = (v.astype(np.float32) for v in moved)
        return ImageDescriptors(rows, centre.scales, whole)

    alike = Window(near(), [near() for _ in range(images)])
    other = Window(centre, [random_image(rng, shipped.config) for _ in range(37)])
    (alone,) = score_windows(shipped.reranker, [alike], CPU)
    together = score_windows(shipped.reranker, [other, alike], CPU)
    np.testing.assert_allclose(together[1], alone, atol=1e-4)


def test_images_with_one_global_are_told_apart_by_their_locals() -> None:
    rng = np.random.default_rng(10)
    one = window(rng, CONFIG, 5)
    twins = [replace(other, global_=one.query.global_) for other in one.gallery]
    (scores,) = score_windows(MODEL, [Window(one.query, twins)], CPU)
    (turned,) = score_windows(MODEL, [Window(one.query, twins[::-1])], CPU)
    np.testing.assert_allclose(turned[::-1], scores, atol=1e-4)


def test_rows_beyond_the_checkpoints_number_do_not_count() -> None:
    rng = np.random.default_rng(0)
    query = image(rng, CONFIG)
    long = image(rng, CONFIG, rows=CONFIG.descriptors_per_image + 5)
    short = long.strongest(CONFIG.descriptors_per_image)
    first, second = score_windows(MODEL, [Window(query, [long]), Window(query, [short])], CPU)
    np.testing.assert_allclose(first, second, atol=1e-6)


def test_an_image_that_is_the_query_correlates_perfectly() -> None:
    rng = np.random.default_rng(1)
    query = image(rng, CONFIG)
    batch = MODEL.collate([Window(query, [query, image(rng, CONFIG)])])
    found = correlate(batch, MODEL.metric)
    local, per_image = correlation_features(batch, found, likeness(batch, found)[1])
    best, gap = local[0, 1, :, 0], local[0, 1, :, 2]
    torch.testing.assert_close(best, torch.ones_like(best))
    torch.testing.assert_close(gap, torch.zeros_like(gap), atol=1e-6, rtol=0)
    torch.testing.assert_close(per_image[0, 1, :5], torch.ones(5))
    assert (per_image[0, 2, :5] < 0.99).all()


def test_two_images_compare_alike_whoever_else_lacks_a_global() -> None:
    rng = np.random.default_rng(2)
    query, first = image(rng, CONFIG), image(rng, CONFIG)
    bare = image(rng, CONFIG, with_global=False)
    batch = MODEL.collate([Window(query, [first, bare])])
    found = correlate(batch, MODEL.metric)
    cosines = found.global_[0]
    assert query.global_ is not None
    assert first.global_ is not None
    assert float(cosines[0, 1]) == pytest.approx(float(query.global_ @ first.global_), abs=1e-5)
    means = query.locals.sum(0), bare.locals.sum(0)
    expected = means[0] @ means[1] / np.linalg.norm(means[0]) / np.linalg.norm(means[1])
    assert float(cosines[0, 2]) == pytest.approx(float(expected), abs=1e-5)
    assert float(found.refined[0, 0, 2]) == pytest.approx(float(expected), abs=1e-5)


def test_the_scale_of_a_descriptor_does_not_matter() -> None:
    rng = np.random.default_rng(3)
    one = window(rng, CONFIG, 3)
    assert one.gallery[0].locals is not None
    longer = ImageDescriptors(
        one.gallery[0].locals * 3, one.gallery[0].scales, one.gallery[0].global_
    )
    changed = Window(one.query, [longer, *one.gallery[1:]])
    first, second = score_windows(MODEL, [one, changed], CPU)
    np.testing.assert_allclose(first, second, atol=1e-4)


def test_bfloat16_scores_are_about_the_same() -> None:
    one = window(np.random.default_rng(4), CONFIG, 9)
    (exact,) = score_windows(MODEL, [one], CPU)
    (rough,) = score_windows(tiny_model().to(torch.bfloat16), [one], CPU)
    assert np.abs(rough - exact).max() < 0.1 * np.abs(exact).max() + 0.1


def test_an_untrained_model_orders_by_similarity() -> None:
    rng = np.random.default_rng(6)
    query = image(rng, CONFIG)
    alike = ImageDescriptors(query.locals[::-1], query.scales, query.global_)
    gallery = [image(rng, CONFIG), alike, image(rng, CONFIG)]
    (scores,) = score_windows(MambaReranker(CONFIG).eval(), [Window(query, gallery)], CPU)
    assert scores.argmax() == 1


@pytest.mark.parametrize("changes", [{"descriptor_dim": 1}, {"global_dim": 1}])
def test_sizes_that_would_broadcast_are_refused(changes: dict[str, int]) -> None:
    rng = np.random.default_rng(7)
    odd = image(rng, tiny_config(**changes))
    with pytest.raises(ValueError, match="locals of sizes"):
        score_windows(MODEL, [Window(image(rng, CONFIG), [odd])], CPU)


def test_aggregations() -> None:
    logits = torch.tensor([[5.0, 1.0, 2.0, 3.0], [7.0, 4.0, 6.0, 99.0]])
    mask = torch.tensor([[True] * 4, [True, True, True, False]])
    assert aggregate(logits, mask, "sep").tolist() == [5, 7]
    assert aggregate(logits, mask, "first").tolist() == [1, 4]
    assert aggregate(logits, mask, "last").tolist() == [3, 6]
    assert aggregate(logits, mask, "mean").tolist() == pytest.approx([11 / 4, 17 / 3])


def test_padding_among_the_locals_is_left_out() -> None:
    """Our re-ranker knows no places: an image with holes is the image without them."""
    config = tiny_config()
    model = tiny_model(config)
    rng = np.random.default_rng(5)
    whole = window(rng, config, 4)
    padding = np.array([False, True, False, True, False])
    rows = image(rng, config, 5)
    holed = replace(rows, locals=rows.locals * ~padding[:, None], padding=padding)
    (expected,) = score_windows(model, [Window(holed.without_padding(), whole.gallery)], CPU)
    (found,) = score_windows(model, [Window(holed, whole.gallery)], CPU)
    np.testing.assert_array_equal(found, expected)
    assert holed.without_padding().count == 3


def learnt() -> MambaReranker:
    reranker = tiny_model()
    size = CONFIG.global_dim + CONFIG.descriptor_dim
    reranker.learn_metric(np.random.default_rng(0).standard_normal((size, size)).astype(np.float32))
    return reranker


def test_images_are_compared_in_the_learnt_metric_too() -> None:
    rng = np.random.default_rng(3)
    reranker, pair = learnt(), (image(rng, CONFIG), image(rng, CONFIG))
    batch = reranker.collate([Window(pair[0], [pair[1]])])
    found = correlate(batch, reranker.metric)
    refined = described(pair) @ reranker.metric.numpy()
    cosine = refined[0] @ refined[1] / np.prod(np.linalg.norm(refined, axis=1))
    assert float(found.refined[0, 0, 1]) == pytest.approx(float(cosine), abs=1e-6)
    assert float(found.global_[0, 0, 1]) == pytest.approx(
        float(correlate(batch, MODEL.metric).global_[0, 0, 1])
    )


def test_a_list_can_do_without_the_metric() -> None:
    given = window(np.random.default_rng(4), CONFIG, 4)
    plain, used = score_windows(learnt(), [replace(given, in_metric=False), given], CPU)
    (without,) = score_windows(MODEL, [given], CPU)
    np.testing.assert_allclose(plain, without, atol=1e-5)
    assert np.abs(used - without).max() > 1e-4
