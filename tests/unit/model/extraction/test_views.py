from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from model.extraction.views import ViewOptions, random_view

PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 140, 3), np.uint8))


@settings(max_examples=30)
@given(st.integers(0, 2**31))
def test_a_view_is_a_picture_of_the_asked_size(seed: int) -> None:
    view = random_view(PHOTO, np.random.default_rng(seed), ViewOptions(longest_side=64))
    assert max(view.size) == 64
    assert min(view.size) >= 32
    assert view.mode == "RGB"


def test_the_same_seed_makes_the_same_view_and_another_another() -> None:
    first, second, other = (random_view(PHOTO, np.random.default_rng(s)) for s in (1, 1, 2))
    assert first.tobytes() == second.tobytes() != other.tobytes()


def test_a_view_shows_the_photograph_and_nothing_beyond_its_edges() -> None:
    white = Image.new("RGB", (200, 150), "white")
    options = ViewOptions(light=0.0, occluded=0.16, tilt=0.3)
    for seed in range(20):
        view = np.asarray(random_view(white, np.random.default_rng(seed), options))
        assert (view == 255).all(axis=2).mean() > 0.95
