"""What a window costs, by what each backbone computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from model.config import ElvisConfig, ExtractorId, LongformerConfig, MambaConfig
from model.config_file import read_config
from model.shipped import checkpoint_file
from model.tokens import relate
from model.window_batch import collate
from model.windows import Window
from tests.factories import image, tiny_config

NAMED = {"name": "any", "extractor": ExtractorId(name="made-up", version="1")}
MAMBA = tiny_config(matches_per_image=3)


@pytest.mark.parametrize("locals_", [[6, 1, 6, 2], [2, 5, 1], [1, 1], [6, 6, 6, 6, 6]])
def test_the_mamba_re_rankers_tokens_are_those_that_it_reads(locals_: list[int]) -> None:
    rng = np.random.default_rng(0)
    query, *gallery = [image(rng, MAMBA, count) for count in locals_]
    batch = collate([Window(query, gallery)], descriptors_per_image=6)
    mask = relate(batch, MAMBA.matches_per_image).mask
    cost = MAMBA.window_cost(locals_)
    assert (1, cost.images, cost.slots) == tuple(mask.shape)
    assert cost.tokens == int(torch.count_nonzero(mask))


def test_locals_do_not_pad_the_mamba_re_rankers_tokens() -> None:
    few, many = MAMBA.window_cost([6, 1, 1, 1]), MAMBA.window_cost([6, 6, 6, 6])
    assert (few.images, few.slots) == (many.images, many.slots)
    assert few.own < many.own


def test_relations_cost_more_the_longer_the_list() -> None:
    config = MambaConfig(**NAMED)
    short, long = config.window_cost([48] * 11), config.window_cost([48] * 101)
    assert long.own / long.images > short.own / short.images
    assert short.alone > short.images * short.slots


def test_a_longformer_reads_every_place_of_an_image() -> None:
    config = LongformerConfig(**NAMED, descriptor_dim=768, global_dim=768, descriptors_per_image=48)
    cost = config.window_cost([48, 1, 2])
    assert (cost.own, cost.images, cost.slots) == (0, 3, 50)
    assert cost.tokens == 48 + 1 + 2 + 3 * 2


def test_pairs_are_padded_to_the_longest_image() -> None:
    cost = ElvisConfig(**NAMED).window_cost([500, 600, 100])
    assert (cost.own, cost.images, cost.slots, cost.tokens) == (0, 3, 600, 1200)


def test_few_locals_of_an_image_are_tokens_of_small() -> None:
    config = read_config(checkpoint_file(Path("small")))
    cost = config.window_cost([48, 1, 12, 20])
    assert (cost.own, cost.images, cost.slots) == (0, 4, 14)
    assert cost.tokens == 12 + 1 + 12 + 12 + 4 * 2
    assert config.window_cost([3, 1]).slots == 5
