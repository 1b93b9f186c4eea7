"""A metric learnt in closed form: directions in which images of one class, or views of one image,
differ count less.

Within-class covariance normalisation (Hatch, Kajarekar and Stolcke, Interspeech 2006), which image
retrieval knows as learnt whitening (Mikolajczyk and Matas, ICCV 2007), of an image's global
descriptor beside the mean of its locals. A `Metric` gives an image a global of which the plain
cosine is the cosine in the metric, so that whatever compares globals then compares in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from model.config import ExtractorId
from model.descriptors import DescriptorSizes, ImageDescriptors, normalised, stacked_globals

Teacher = tuple[Sequence[ImageDescriptors], NDArray[np.int64]]
"""Images and their classes."""

SHRINKAGE = 0.3
"""The share of the mean variance that is added to every direction."""

_TENSOR = "metric"
_FIELDS = ("extractor", "extractor_version", "learnt_from")


class MetricError(ValueError):
    """A file is not a metric. The message names it and the reason."""


@dataclass(frozen=True, eq=False)
class Metric:
    """A metric for descriptors of one extractor.

    matrix (e + d, e + d) float32: what `described` images are multiplied with; `sizes`: of the
    descriptors that it is for, d and e; `learnt_from`: its training data, in words.
    """

    matrix: NDArray[np.float32]
    sizes: DescriptorSizes
    extractor: ExtractorId
    learnt_from: str

    def __post_init__(self) -> None:
        """Raises ValueError if the matrix is not of these sizes, or not finite."""
        if self.sizes.global_dim is None:
            raise ValueError("a metric is for images with globals")
        size = self.sizes.global_dim + self.sizes.local_dim
        if self.matrix.shape != (size, size):
            raise ValueError(
                f"a metric of {self.matrix.shape}, but descriptors of {self.sizes.local_dim} and "
                f"{self.sizes.global_dim} numbers need ({size}, {size})"
            )
        if not np.isfinite(self.matrix).all():
            raise ValueError("a metric with NaN or infinity")

    @property
    def applied_sizes(self) -> DescriptorSizes:
        """Sizes of an image in the metric: its global is longer."""
        return DescriptorSizes(self.sizes.local_dim, len(self.matrix))

    def apply(self, image: ImageDescriptors) -> ImageDescriptors:
        """The image with a global (e + d,) float32 of length 1 in the place of its own; its locals
        stay as they are. An image without a global stays without one: the metric needs both.

        Raises ValueError for descriptors of other sizes, and InvalidDescriptorsError for an image
        whose locals have a mean of zeros.
        """
        sizes, expected = image.sizes, self.sizes
        expected_here = replace(expected, global_dim=sizes.global_dim and expected.global_dim)
        if sizes != expected_here:
            raise ValueError(f"{sizes}, but the metric is for {expected}")
        if image.global_ is None:
            return image
        (vector,) = described([image]) @ self.matrix
        return replace(image, global_=normalised(vector, "the image in the metric"))


def fit_metric(teachers: Sequence[Teacher], extractor: ExtractorId, learnt_from: str) -> Metric:
    """Raises ValueError if the teachers' images differ in size, or teach nothing."""
    images = [image for of_teacher, _ in teachers for image in of_teacher]
    sizes = {image.sizes for image in images}
    if len(sizes) > 1:
        raise ValueError(f"a metric is learnt from images of one size, not of {len(sizes)}")
    matrix = learnt_metric(teachers)
    return Metric(matrix, images[0].sizes, extractor, learnt_from)


def save_metric(metric: Metric, path: Path) -> None:
    """Writes a metric, atomically. Raises OSError."""
    values = (metric.extractor.name, metric.extractor.version, metric.learnt_from)
    sizes = {"local_dim": metric.sizes.local_dim, "global_dim": metric.sizes.global_dim}
    fields = dict(zip(_FIELDS, values, strict=True)) | {n: str(v) for n, v in sizes.items()}
    partial = path.with_name(path.name + ".partial")
    try:
        save_file({_TENSOR: np.ascontiguousarray(metric.matrix)}, partial, metadata=fields)
        partial.replace(path)
    except SafetensorError as error:
        raise OSError(f"{path}: cannot be written ({error})") from None
    finally:
        partial.unlink(missing_ok=True)


def load_metric(path: Path) -> Metric:
    """Raises MetricError for a file that is missing, damaged or of something else."""
    try:
        with safe_open(path, framework="np") as file:
            fields = file.metadata() or {}
            if list(file.keys()) != [_TENSOR] or not {*_FIELDS} <= fields.keys():
                raise MetricError(f"{path}: a safetensors file, but no metric")
            matrix = np.asarray(file.get_tensor(_TENSOR), np.float32)
        name, version, learnt_from = (fields[field] for field in _FIELDS)
        sizes = DescriptorSizes(int(fields["local_dim"]), int(fields["global_dim"]))
        return Metric(matrix, sizes, ExtractorId(name=name, version=version), learnt_from)
    except FileNotFoundError:
        raise MetricError(f"{path}: no such file") from None
    except MetricError:
        raise
    except (SafetensorError, OSError) as error:
        raise MetricError(f"{path}: not a readable safetensors file ({error})") from None
    except (KeyError, ValueError) as error:
        raise MetricError(f"{path}: {error}") from None


def described(images: Sequence[ImageDescriptors]) -> NDArray[np.float64]:
    """(n, e + d): of every image its global and the mean of its locals, both of length 1. Raises
    ValueError unless all images have a global of the same size."""
    globals_ = stacked_globals(images)
    if globals_ is None:
        raise ValueError("a metric is learnt from images that all have a global descriptor")
    means = np.stack([image.without_padding().locals.mean(0) for image in images])
    vectors: NDArray[np.float64] = np.hstack(
        (normalised(globals_, "globals"), normalised(means, "means of the locals"))
    ).astype(np.float64)
    return vectors


def spread_within(vectors: NDArray[np.float64], classes: NDArray[np.int64]) -> NDArray[np.float64]:
    """(v, v): the covariance of vectors (n, v) within their classes, of trace 1. Raises ValueError
    if no class has two."""
    _, of = np.unique(classes, return_inverse=True)
    sums = np.zeros((of.max() + 1, vectors.shape[1]))
    np.add.at(sums, of, vectors)
    rest = vectors - (sums / np.bincount(of)[:, None])[of]
    spread: NDArray[np.float64] = rest.T @ rest
    total = np.trace(spread)
    if not total > 0:
        raise ValueError("a metric is learnt from several images of a class")
    covariance: NDArray[np.float64] = spread / total
    return covariance


def learnt_metric(teachers: Sequence[Teacher]) -> NDArray[np.float32]:
    """(e + d, e + d): what `described` images are multiplied with before their cosine is taken.
    Each of the teachers (photographs and views, for example) has the same weight. Raises
    ValueError."""
    spread = np.mean([spread_within(described(images), of) for images, of in teachers], axis=0)
    return whitening(spread)


def whitening(spread: NDArray[np.float64]) -> NDArray[np.float32]:
    """(v, v): multiplied with it, vectors of this spread have the same spread in every direction,
    except for the shrinkage."""
    variances, directions = np.linalg.eigh(spread)
    projection: NDArray[np.float32] = (
        directions / np.sqrt(variances.clip(min=0) + SHRINKAGE * variances.mean())
    ).astype(np.float32)
    return projection
