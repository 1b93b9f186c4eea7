"""Lists from neighbour lists: shuffled, without the query, no longer than asked for."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from model.descriptors import ImageDescriptors
from model.training.neighbour_lists import NeighbourLists
from model.training.training_lists import ListShape
from tests.factories import unit

IMAGES, K = 30, 12


class Counted:
    """An image's locals tell its place."""

    def __getitem__(self, place: int) -> ImageDescriptors:
        rows = np.zeros((6, IMAGES), np.float32)
        rows[:, place] = 1
        return ImageDescriptors(rows, np.zeros(6, np.uint8))


def place_of(image: ImageDescriptors) -> int:
    return int(image.locals[0].argmax())


@given(st.integers(0, 2**32), st.integers(2, K + 3))
def test_a_list_is_the_querys_nearest_shuffled(seed: int, images: int) -> None:
    rng = np.random.default_rng(0)
    vectors = unit(rng, IMAGES, 4)
    neighbours = np.argsort(-(vectors @ vectors.T), axis=1)[:, :K]
    labels = rng.integers(0, 3, IMAGES)
    lists = NeighbourLists(Counted(), neighbours, labels)
    training_list = lists.draw(np.random.default_rng(seed), ListShape(images, descriptors=4))
    query = place_of(training_list.window.query)
    gallery = [place_of(image) for image in training_list.window.gallery]
    expected = [place for place in neighbours[query] if place != query][:images]
    assert sorted(gallery) == sorted(expected)
    assert training_list.relevant.tolist() == (labels[gallery] == labels[query]).tolist()
    assert {
        image.count for image in (training_list.window.query, *training_list.window.gallery)
    } == {4}


def test_the_order_of_the_first_stage_is_lost() -> None:
    neighbours = np.tile(np.arange(IMAGES), (IMAGES, 1))
    lists = NeighbourLists(Counted(), neighbours, np.zeros(IMAGES, np.int64))
    orders = {
        tuple(
            place_of(image)
            for image in lists.draw(np.random.default_rng(seed), ListShape(5, 4)).window.gallery
        )
        for seed in range(20)
    }
    assert len(orders) > 15
