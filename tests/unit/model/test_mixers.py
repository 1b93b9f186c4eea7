"""What can stand where Mamba is sees the whole list, or as much of it as it says."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from model.config import MAX_LIST
from model.mixers import SIDE, NoMixer, WindowedAttention, windowed_attention
from model.scan import chunked_scan
from tests.factories import tiny_config


def test_windowed_attention_is_attention_with_a_band() -> None:
    torch.manual_seed(0)
    side, length = 4, 22
    q, k, v = torch.randn(3, 2, 2, length, 5).unbind()
    valid = torch.rand(2, length) < 0.8
    valid[:, :3] = True
    place = torch.arange(length)
    near = (place.unsqueeze(1) - place).abs() <= side
    allowed = near & valid[:, None, None, :]
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
    mixed = windowed_attention(q, k, v, valid, side)
    sees = allowed.any(-1).expand(2, 2, length)
    torch.testing.assert_close(mixed[sees], expected[sees])
    assert mixed.isfinite().all()


@torch.inference_mode()
def test_a_token_sees_those_that_are_near_enough_and_no_others() -> None:
    torch.manual_seed(0)
    mixer = WindowedAttention(8, 2, slots=4).eval()
    x, mask = (
        torch.randn(1, MAX_LIST, 4, 8),
        torch.ones(1, MAX_LIST, 4, dtype=torch.bool),
    )
    before = mixer(x, mask, chunked_scan).flatten(1, 2)
    x[0, 0, 0] += 1
    moved = (mixer(x, mask, chunked_scan).flatten(1, 2) - before).abs().amax((0, 2)) > 1e-6
    assert moved[: SIDE + 1].all()
    assert not moved[SIDE + 1 :].any()


@torch.inference_mode()
def test_positions_are_told_apart_and_lists_start_anywhere_in_training() -> None:
    torch.manual_seed(0)
    mixer = WindowedAttention(8, 2, slots=2)
    x, mask = torch.ones(1, 5, 2, 8), torch.ones(1, 5, 2, dtype=torch.bool)
    one, other = (mixer(x, mask, chunked_scan) for _ in range(2))
    assert (one - other).abs().max() > 1e-5
    mixer.eval()
    one, other = (mixer(x, mask, chunked_scan) for _ in range(2))
    assert torch.equal(one, other)


def test_a_window_that_has_no_positions_is_told_by_the_config() -> None:
    assert tiny_config(mixer="windowed-attention").longest_window == MAX_LIST - 1
    assert tiny_config(mixer="mamba").longest_window is None
    assert tiny_config(mixer="none").longest_window is None


@pytest.mark.parametrize("images", [1, 7])
def test_no_mixer_adds_nothing(images: int) -> None:
    x, mask = torch.randn(2, images, 3, 8), torch.ones(2, images, 3, dtype=torch.bool)
    assert not NoMixer()(x, mask, chunked_scan).any()
