"""The graph between images: standardised, smooth, and blind to padding."""

from __future__ import annotations

import numpy as np
import torch

from model.batch import Window
from model.descriptors import ImageDescriptors
from model.neighbours import LIKENESSES, NEIGHBOURHOODS, likeness
from model.tokens import correlate
from tests.factories import image, tiny_config, tiny_model, window

CONFIG = tiny_config()
MODEL = tiny_model()


def of(*windows: Window) -> tuple[torch.Tensor, torch.Tensor]:
    batch = MODEL.collate(windows)
    return likeness(batch, correlate(batch, torch.eye(CONFIG.global_dim + CONFIG.descriptor_dim)))


def test_every_likeness_is_standardised_over_the_pairs() -> None:
    found, _ = of(window(np.random.default_rng(0), CONFIG, 30))
    assert found.shape == (1, LIKENESSES, 31, 31)
    pairs = found[0][:, ~torch.eye(31, dtype=torch.bool)]
    torch.testing.assert_close(pairs.mean(1), torch.zeros(LIKENESSES), atol=1e-4, rtol=0)
    assert (pairs.std(1) > 0.5).all()
    assert (pairs.std(1) < 1.01).all()


def test_padding_has_no_part_in_it() -> None:
    rng = np.random.default_rng(1)
    short, long = window(rng, CONFIG, 5), window(rng, CONFIG, 40)
    alone, overlap = of(short)
    together, overlap_together = of(short, long)
    torch.testing.assert_close(together[0, :, :6, :6], alone[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(overlap_together[0, :, :6, :6], overlap[0], atol=1e-5, rtol=0)
    assert (together[0, :, 6:] == 0).all()


def test_images_of_one_crowd_share_their_neighbourhood() -> None:
    """Two crowds around two centres: neighbourhoods overlap within one, hardly between two."""
    rng = np.random.default_rng(2)
    centres = [image(rng, CONFIG), image(rng, CONFIG)]

    def near(centre: ImageDescriptors) -> ImageDescriptors:
        assert centre.global_ is not None
        locals_ = centre.locals + 0.1 * rng.standard_normal(centre.locals.shape)
        global_ = centre.global_ + 0.1 * rng.standard_normal(len(centre.global_))
        return ImageDescriptors(
            locals_.astype(np.float32), centre.scales, global_.astype(np.float32)
        )

    gallery = [near(centres[n % 2]) for n in range(20)]
    _, overlap = of(Window(near(centres[0]), gallery))
    to_query = overlap[0, NEIGHBOURHOODS.index(8), 0, 1:]
    assert to_query[0::2].min() > 2 * to_query[1::2].max()


def test_one_graph_is_in_the_learnt_metric_and_one_is_not() -> None:
    rng = np.random.default_rng(6)
    batch = MODEL.collate([window(rng, CONFIG, 60)])
    size = CONFIG.global_dim + CONFIG.descriptor_dim
    metric = torch.from_numpy(rng.standard_normal((size, size)).astype(np.float32))
    plain, learnt = (likeness(batch, correlate(batch, m))[1] for m in (MODEL.metric, metric))
    kinds = len(NEIGHBOURHOODS)
    assert (plain[:, :kinds] - learnt[:, :kinds]).abs().amax(dim=(0, 2, 3)).min() > 0.05
    torch.testing.assert_close(plain[:, kinds:], learnt[:, kinds:])


def test_a_window_of_one_image_is_finite() -> None:
    found, overlap = of(window(np.random.default_rng(3), CONFIG, 1))
    assert found.isfinite().all()
    assert overlap.isfinite().all()
