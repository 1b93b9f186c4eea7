"""Batches of many lists without a service."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count, islice

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.descriptors import ImageDescriptors
from model.windows import RerankOptions, Window
from service.batching.job import Job
from service.batching.speed import Speed
from service.batching.window_queue import WindowQueue
from service.offline.shared_passes import rerank_in_batches
from tests.factories import image, tiny_config

CONFIG = tiny_config()
PER_IMAGE = CONFIG.descriptors_per_image + CONFIG.extra_tokens
SPEED = Speed(per_pass=0.003, per_window=0.002, per_unit=1e-5)
RNG = np.random.default_rng(0)
IMAGES = [image(RNG, CONFIG, int(rows)) for rows in RNG.integers(1, 7, 40)]
OPTIONS = RerankOptions(alpha=0, temperature=1, window=6, stride=3, direction="end-to-start")


def made_up_score(windows: Sequence[Window]) -> list[NDArray[np.float32]]:
    """By the images alone, so that an order can be known without a model."""
    return [
        np.array([i.locals[0] @ w.query.locals[0] for i in w.gallery], np.float32) for w in windows
    ]


def queue_of(batch_tokens: int, held_tokens: int) -> WindowQueue:
    return WindowQueue(SPEED, max_batch_tokens=batch_tokens, max_queue_tokens=held_tokens)


def job(query: ImageDescriptors, gallery: Sequence[ImageDescriptors]) -> Job:
    one = Job(CONFIG, len(gallery), OPTIONS)
    one.begin(query, gallery, None)
    return one


def offline_list(tag: int, places: Sequence[int]) -> tuple[int, Job | None]:
    """An empty list has nothing to score."""
    gallery = [IMAGES[place] for place in places]
    return tag, job(IMAGES[tag % 40], gallery) if gallery else None


@given(
    st.lists(st.lists(st.integers(0, 39), max_size=20, unique=True), max_size=12),
    st.integers(1, 400),
    st.integers(1, 1000),
)
@settings(max_examples=60)
def test_every_list_comes_out_in_its_turn_as_if_it_were_alone(
    lists: list[list[int]], batch_tokens: int, held_tokens: int
) -> None:
    passes: list[list[Window]] = []

    def score(windows: Sequence[Window]) -> list[NDArray[np.float32]]:
        passes.append(list(windows))
        return made_up_score(windows)

    source = (offline_list(tag, places) for tag, places in enumerate(lists))
    results = list(rerank_in_batches(source, score, queue_of(batch_tokens, held_tokens), 8))
    assert [tag for tag, _ in results] == list(range(len(lists)))
    for (tag, shared), places in zip(results, lists, strict=True):
        _, alone = offline_list(tag, places)
        if not places:
            assert shared is None
            continue
        assert alone is not None
        assert shared is not None
        while not alone.finished:
            (logits,) = made_up_score([alone.window])
            alone.accept(logits)
        np.testing.assert_array_equal(shared.result()[0], alone.result()[0])
    for windows in passes:
        slots = 1 + max(min(w.query.count, CONFIG.matches_per_image) for w in windows)
        padded = len(windows) * max(1 + len(w.gallery) for w in windows) * slots
        assert len(windows) == 1 or padded <= batch_tokens


def test_an_endless_file_takes_no_more_than_there_is_room_for() -> None:
    produced = 0

    def source() -> Iterator[tuple[int, Job | None]]:
        nonlocal produced
        for tag in count():
            produced += 1
            # Now and then nothing but lists without descriptors comes for a while.
            yield offline_list(tag, [] if tag % 100 > 50 else list(range(1 + tag % 20)))

    most_ahead = 0
    for place, _ in enumerate(
        islice(rerank_in_batches(source(), made_up_score, queue_of(400, 10**9), 30), 500)
    ):
        most_ahead = max(most_ahead, produced - place)
    # One more has come, and waits for room.
    assert most_ahead == 31


def test_lists_are_held_as_far_as_there_is_room_in_memory() -> None:
    sizes: list[int] = []

    def score(windows: Sequence[Window]) -> list[NDArray[np.float32]]:
        sizes.append(len(windows))
        return made_up_score(windows)

    lists = [offline_list(tag, list(range(6))) for tag in range(9)]
    assert len(list(rerank_in_batches(lists, score, queue_of(10**6, 3 * 7 * PER_IMAGE), 100))) == 9
    assert sizes == [3, 3, 3]


def test_windows_share_a_pass_as_far_as_there_is_room() -> None:
    sizes: list[int] = []

    def score(windows: Sequence[Window]) -> list[NDArray[np.float32]]:
        sizes.append(len(windows))
        return made_up_score(windows)

    full: list[ImageDescriptors] = [i for i in IMAGES if i.count == CONFIG.descriptors_per_image]
    lists = [(n, job(full[0], full[1:4])) for n in range(10)]
    tokens = 4 * 4 * (1 + CONFIG.matches_per_image)
    assert len(list(rerank_in_batches(lists, score, queue_of(tokens, 10**9), 12))) == 10
    assert sizes == [4, 4, 2]
