"""RootSIFT by OpenCV: descriptors without a network (Lowe, IJCV 2004; Arandjelović & Zisserman,
"Three things everyone should know to improve object retrieval", CVPR 2012).

Locals: the keypoints of strongest response; a picture with hardly any, such as a smooth surface, is
described on a grid instead. Global: VLAD (Jégou et al., "Aggregating local descriptors into a
compact image representation", CVPR 2010) of the strongest keypoints, in their principal components,
with the signed square root.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import load_file, save_file

from model.descriptors import ExtractedImage
from model.extraction.whitening import fit_whitening

_Floats = NDArray[np.float32]

CODEBOOK_FILE = Path(__file__).with_name("sift.safetensors")
LONGER_SIDE = (256, 512)
"""Pixels: images are resized only as far as their longer side is within these."""
SHORTEST_SIDE = 16
"""Pixels; a very long image is stretched to it."""
FEWEST = 8
"""An image with fewer keypoints is described on a grid."""
GRID_STEP, GRID_SIZE = 16, 8.0
"""Pixels between places of the grid, and the diameter of a keypoint there; a descriptor covers six
diameters."""
CONTRAST = 0.01
"""A quarter of OpenCV's threshold: the strongest are chosen anyway."""
POOLED = 400
"""Keypoints of an image that make its global."""
# 512 numbers. On seven sets of photographs 64 x 8 and 32 x 16 retrieve less well, and so do sums of
# length 1 for each centre and a whitening of the whole.
CENTRES, COMPONENTS = 16, 32


@dataclass(frozen=True, eq=False)
class Codebook:
    """mean (128,) and axes (128, c): the principal components of RootSIFT; centres (k, c) of
    those."""

    mean: _Floats
    axes: _Floats
    centres: _Floats

    def vlad(self, descriptors: _Floats) -> _Floats:
        """RootSIFT (n, 128) to a vector (k * c,) of length 1."""
        parts = (descriptors - self.mean) @ self.axes
        # The nearest centre; |x|² is the same for all.
        nearest = (parts @ self.centres.T - (self.centres**2).sum(axis=1) / 2).argmax(axis=1)
        sums = np.zeros_like(self.centres)
        np.add.at(sums, nearest, parts - self.centres[nearest])
        roots = np.sign(sums) * np.sqrt(np.abs(sums))
        return np.asarray(roots.ravel() / np.linalg.norm(roots), np.float32)


class Sift:
    """See the module. `load_sift` reads the codebook."""

    name = "sift"
    descriptor_dim = 128

    def __init__(self, codebook: Codebook, version: str) -> None:
        self.version = version
        self.global_dim = codebook.centres.size
        self._codebook = codebook

    def extract(self, image: Image.Image, count: int) -> ExtractedImage:
        points = _points(image, max(count, POOLED))
        return ExtractedImage(
            points.places[:count],
            points.scales[:count],
            points.strengths[:count],
            points.descriptors[:count],
            self._codebook.vlad(points.descriptors[:POOLED]),
        )


def load_sift(path: Path = CODEBOOK_FILE) -> Sift:
    """SIFT with the codebook that `fit` has written to `path`."""
    cv2.setNumThreads(1)  # each of our workers has an image of its own already
    tensors = {name: tensor.astype(np.float32) for name, tensor in load_file(path).items()}
    return Sift(Codebook(**tensors), hashlib.sha256(path.read_bytes()).hexdigest()[:12])


def fit(
    images: Iterable[Image.Image],
    path: Path,
    *,
    centres: int = CENTRES,
    components: int = COMPONENTS,
    per_image: int = 20,
) -> None:
    """Learn the codebook from `images` and write it to `path`.

    Raises ValueError if they have no more keypoints than `components`.
    """
    rng = np.random.default_rng(0)
    cv2.setRNGSeed(0)
    some = np.concatenate(
        [rng.permutation(_points(image, POOLED).descriptors)[:per_image] for image in images]
    )
    pca = fit_whitening(some, components, power=0)
    mean, axes = pca.mean.numpy(), pca.projection.numpy()
    stop = (cv2.TERM_CRITERIA_MAX_ITER + cv2.TERM_CRITERIA_EPS, 30, 1e-4)
    parts = np.asarray((some - mean) @ axes, np.float32)
    nearest = np.zeros((len(parts), 1), np.int32)
    _, _, means = cv2.kmeans(parts, centres, nearest, stop, 1, cv2.KMEANS_PP_CENTERS)
    tensors = {"mean": mean, "axes": axes, "centres": means}
    save_file({n: np.ascontiguousarray(t, np.float16) for n, t in tensors.items()}, path)


@dataclass(frozen=True, eq=False)
class _Points:
    """Strongest first: places (n, 2) as fractions, scales (n,) as octaves, strengths (n,),
    descriptors (n, 128)."""

    places: _Floats
    scales: NDArray[np.uint8]
    strengths: _Floats
    descriptors: _Floats


def _points(image: Image.Image, count: int) -> _Points:
    """The strongest `count`, at least one."""
    pixels = _grey(image)
    # One of its own: OpenCV does not promise that several threads may share one.
    sift = cv2.SIFT.create(nfeatures=count, contrastThreshold=CONTRAST)
    keypoints, histograms = sift.detectAndCompute(pixels, None)
    if len(keypoints) < FEWEST:
        keypoints, histograms = sift.compute(pixels, _grid(pixels))
    strengths = np.array([point.response for point in keypoints], np.float32)
    strongest = np.argsort(-strengths, kind="stable")[:count]
    # OpenCV counts from the middle of the first pixel.
    places = np.array([keypoints[i].pt for i in strongest]) + 0.5
    return _Points(
        np.asarray(places / pixels.shape[::-1], np.float32),
        # The first octave is that of the image at twice its size, in OpenCV's byte -1.
        np.array([(keypoints[i].octave + 1) & 255 for i in strongest], np.uint8),
        strengths[strongest],
        _root(np.asarray(histograms[strongest], np.float32)),
    )


def _grey(image: Image.Image) -> NDArray[np.uint8]:
    longer = max(image.size)
    ratio = min(max(longer, LONGER_SIDE[0]), LONGER_SIDE[1]) / longer
    width, height = (max(round(side * ratio), SHORTEST_SIDE) for side in image.size)
    return np.asarray(image.convert("L").resize((width, height), Image.Resampling.BICUBIC))


def _grid(pixels: NDArray[np.uint8]) -> list[cv2.KeyPoint]:
    """Upright keypoints, as strong as the grey levels around them vary."""
    height, width = pixels.shape
    rows, columns = height // GRID_STEP, width // GRID_STEP
    points = []
    for row in range(rows):
        for column in range(columns):
            y, x = (row + 0.5) * height / rows, (column + 0.5) * width / columns
            reach = int(GRID_SIZE)
            top, left = max(int(y) - reach, 0), max(int(x) - reach, 0)
            around = pixels[top : int(y) + reach, left : int(x) + reach]
            points.append(cv2.KeyPoint(x - 0.5, y - 0.5, GRID_SIZE, 0, float(around.std()) / 255))
    return points


def _root(histograms: _Floats) -> _Floats:
    """RootSIFT (n, 128), of length 1. A place without any gradient has no preferred direction: all
    its numbers are the same."""
    flat = ~histograms.any(axis=1, keepdims=True)
    counts = np.where(flat, np.float32(1), histograms)
    return np.asarray(np.sqrt(counts / counts.sum(axis=1, keepdims=True)), np.float32)
