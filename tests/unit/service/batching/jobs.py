"""Queues and jobs of made-up lists."""

from __future__ import annotations

import math

import numpy as np

from model.config import ModelConfig
from model.windows import RerankOptions
from service.batching.job import Job
from service.batching.speed import Speed
from service.batching.window_queue import Batch, WindowQueue
from tests.factories import image, tiny_config

CONFIG = tiny_config()
HELD_PER_IMAGE = CONFIG.descriptors_per_image + CONFIG.extra_tokens
SPEED = Speed(per_pass=0.003, per_window=0.002, per_unit=1e-5)
RNG = np.random.default_rng(0)


def queue(
    max_batch_tokens: int = 500, max_queue_tokens: int = 10_000, speed: Speed = SPEED
) -> WindowQueue:
    return WindowQueue(speed, max_batch_tokens=max_batch_tokens, max_queue_tokens=max_queue_tokens)


def job(
    images: int,
    window: int = 4,
    *,
    deadline: float = math.inf,
    config: ModelConfig = CONFIG,
) -> Job:
    options = RerankOptions(0.0, 1.0, window, max(1, window // 2), "end-to-start")
    return Job(config, images, options, deadline)


def begun(one: Job, images: int, rows: int | None = None, config: ModelConfig = CONFIG) -> Job:
    query, *gallery = [image(RNG, config, rows) for _ in range(1 + images)]
    one.begin(query, gallery, None)
    return one


def added(
    waiting: WindowQueue,
    images: int,
    window: int = 4,
    *,
    deadline: float = math.inf,
    rows: int | None = None,
    config: ModelConfig = CONFIG,
) -> Job:
    one = begun(job(images, window, deadline=deadline, config=config), images, rows, config)
    waiting.admit(one)
    waiting.add(one)
    return one


def score(waiting: WindowQueue, batch: Batch) -> None:
    for one in batch.jobs:
        waiting.accept(one, np.zeros(len(one.window.gallery), np.float32))
        if one.finished:
            waiting.release(one)
