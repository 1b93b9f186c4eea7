"""Metrics for made-up images, as files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from model.config import ExtractorId
from model.descriptors import DescriptorSizes
from model.learnt_metric import Metric, save_metric

MADE_UP = ExtractorId(name="made-up", version="1")


def random_metric(sizes: DescriptorSizes, seed: int = 0) -> Metric:
    """Far from plain cosines."""
    size = sizes.local_dim + (sizes.global_dim or 0)
    matrix = np.random.default_rng(seed).standard_normal((size, size)).astype(np.float32)
    return Metric(matrix, sizes, MADE_UP, "nothing")


def write_metric(path: Path, sizes: DescriptorSizes, seed: int = 0) -> Metric:
    metric = random_metric(sizes, seed)
    save_metric(metric, path)
    return metric
