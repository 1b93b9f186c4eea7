"""The learnt metrics (`model.learnt_metric`) in which collections are re-ranked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model.config import ModelConfig
from model.descriptors import ImageDescriptors, InvalidDescriptorsError
from model.learnt_metric import Metric, MetricError, load_metric
from service.api.errors import DescriptorDimMismatchError, UnprocessableError
from service.api.sizes import misfit


def load_metrics(paths: Mapping[str, Path], config: ModelConfig) -> dict[str, Metric]:
    """Loads metrics by collection. Raises MetricError, also if the checkpoint cannot read images in
    the metric."""
    return {collection: metric_for(path, config) for collection, path in paths.items()}


def metric_for(path: Path, config: ModelConfig) -> Metric:
    """Raises MetricError."""
    metric = load_metric(path)
    wrong = None if config.sizes is None else misfit(metric.applied_sizes, config.sizes)
    if wrong is not None:
        part = "locals" if wrong.part == "descriptors" else "a global"
        raise MetricError(
            f"{path}: an image in the metric has {part} of {wrong.actual} numbers, but "
            f"{config.name} needs {wrong.expected}"
        )
    return metric


def in_metric(
    image: ImageDescriptors,
    metric: Metric | None,
    owner: str,
    where: str | None = None,
    image_id: str | None = None,
) -> ImageDescriptors:
    """Applies the metric to an image. For errors: `owner` names the metric; `where` is the image's
    place in the request, `image_id` the id of a registered one. Raises UnprocessableError.
    """
    if metric is None:
        return image
    details: dict[str, Any] = {} if image_id is None else {"id": image_id}
    wrong = misfit(image.sizes, metric.sizes)
    if wrong is not None:
        field = "gallery_ids" if where is None else f"{where}.{wrong.part}"
        raise DescriptorDimMismatchError(field, wrong, owner, **details)
    try:
        return metric.apply(image)
    except InvalidDescriptorsError as error:
        field = where or "gallery_ids"
        raise UnprocessableError(
            f"{field}: {error}", code="invalid_descriptors", field=field, **details
        ) from None
