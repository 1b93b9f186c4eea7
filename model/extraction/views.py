"""Views of a photograph as another visitor might have taken it: another crop and angle, other
light, something in front."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter
from skimage.transform import ProjectiveTransform

from model.extraction.images import read_image


@dataclass(frozen=True)
class ViewOptions:
    """`min_share`: share of each side that a crop keeps at least; `tilt`: how far a corner may
    move, as a share of the crop's side; `occluded`: largest share of a side that is hidden."""

    min_share: float = 0.55
    tilt: float = 0.18
    light: float = 0.45
    occluded: float = 0.45
    longest_side: int = 320


def random_view(
    image: Image.Image, rng: np.random.Generator, options: ViewOptions = ViewOptions()
) -> Image.Image:
    """One view of an RGB image; the same generator state gives the same pixels."""
    view = _random_crop(image, rng, options)
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        view = enhance(view).enhance(float(rng.uniform(1 - options.light, 1 + options.light)))
    if rng.random() < 0.3:
        view = view.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 1.5))))
    if rng.random() < 0.5:
        _occlude(view, rng, options)
    return view


def numbered_view(name: str, path: Path, number: int) -> Image.Image:
    """View `number` of an image file: the same for the same name and number.

    Raises UnreadableImageError.
    """
    return random_view(read_image(path), np.random.default_rng([number, *name.encode()]))


def _random_crop(image: Image.Image, rng: np.random.Generator, options: ViewOptions) -> Image.Image:
    share = rng.uniform(options.min_share, 1.0, size=2)
    start = rng.uniform(0, 1 - share)
    size = np.array(image.size) * share
    corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1)])
    moved = corners + rng.uniform(-options.tilt, options.tilt, (4, 2))
    # Corners stay inside the photograph: a view has no empty edges.
    source = np.clip((start + moved * share), 0, 1) * image.size
    ratio = options.longest_side / size.max()
    width, height = (max(32, round(side * ratio)) for side in size)
    target = corners * (width, height)
    transform = ProjectiveTransform.from_estimate(target, source)
    coefficients = (transform.params / transform.params[2, 2]).flatten()[:8]
    return image.transform(
        (width, height),
        Image.Transform.PERSPECTIVE,
        coefficients.tolist(),
        Image.Resampling.BICUBIC,
    )


def _occlude(view: Image.Image, rng: np.random.Generator, options: ViewOptions) -> None:
    share = rng.uniform(0.15, options.occluded, size=2)
    left, top = rng.uniform(0, 1 - share) * view.size
    width, height = share * view.size
    colour = tuple(int(c) for c in rng.integers(0, 256, 3))
    ImageDraw.Draw(view).rectangle((left, top, left + width, top + height), fill=colour)
