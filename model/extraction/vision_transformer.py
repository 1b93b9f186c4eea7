"""Hugging Face's vision transformers from a local folder.

They are DINOv2 (Oquab et al., 2024) with and without registers, DINOv3 (Siméoni et al., 2025), and
the image side of CLIP (Radford et al., ICML 2021) and of SigLIP (Zhai et al., ICCV 2023). SigLIP 2
(Tschannen et al., 2025) of one resolution is saved as a SigLIP; its NaFlex variant is not read.

Locals: the patch tokens of the last hidden state, of length 1, without CLS and register tokens.
Global: what the network pools, CLS of DINO, the attention head of SigLIP, and CLIP's projection
where the folder has one, else its CLS.

The strength of a patch is what it has to do with the whole: its cosine to the CLS token of the same
layer; SigLIP has none, there it is the patch's share in the attention head. The length of a token
would be no measure: without registers the longest ones lie in the background and tell nothing of
their place (Darcet et al., ICLR 2024).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
    Dinov2Model,
    Dinov2WithRegistersModel,
    DINOv3ViTModel,
    SiglipVisionModel,
)

from model.extraction.extractor import ExtractorError
from model.extraction.patches import PatchExtractor, PatchGrid, PatchSizes
from model.extraction.pretrained import load_pretrained, read_json, short_hash, weights_files

_NETWORKS: dict[str, Any] = {
    "clip": CLIPVisionModel,
    "clip_vision_model": CLIPVisionModel,
    "dinov2": Dinov2Model,
    "dinov2_with_registers": Dinov2WithRegistersModel,
    "dinov3_vit": DINOv3ViTModel,
    "siglip": SiglipVisionModel,
    "siglip_vision_model": SiglipVisionModel,
}
"""By the `model_type` of config.json."""


class VisionTransformer(PatchExtractor):
    """See the module. `load_vision_transformer` reads the weights."""

    def __init__(
        self, name: str, version: str, network: Any, colours: _Colours, device: torch.device
    ) -> None:
        config = network.config
        width = int(config.hidden_size)
        projected = isinstance(network, CLIPVisionModelWithProjection)
        super().__init__(
            name,
            version,
            PatchSizes(int(config.patch_size), int(config.image_size)),
            descriptor_dim=width,
            global_dim=int(config.projection_dim) if projected else width,
        )
        self._network = network.to(device).eval()
        self._colours = colours
        self._device = device
        registers = int(getattr(config, "num_register_tokens", 0))
        self._leading = 0 if isinstance(network, SiglipVisionModel) else 1 + registers
        self._arguments = {"interpolate_pos_encoding": True} if _one_size(network) else {}

    def _grid(self, pixels: NDArray[np.uint8]) -> PatchGrid:
        rows, columns = (side // self._sizes.patch for side in pixels.shape[1:3])
        x = torch.from_numpy(pixels).to(self._device).float() * self._colours.factor
        x = (x - x.new_tensor(self._colours.mean)) / x.new_tensor(self._colours.deviation)
        output = self._network(pixel_values=x.permute(0, 3, 1, 2), **self._arguments)
        tokens = output.last_hidden_state
        patches = tokens[:, self._leading :]
        if self._leading:
            strengths = F.cosine_similarity(patches, tokens[:, :1], dim=-1)
        else:
            strengths = self._shares(tokens)
        projected = isinstance(self._network, CLIPVisionModelWithProjection)
        return PatchGrid(
            F.normalize(patches, dim=-1).unflatten(1, (rows, columns)),
            strengths.unflatten(1, (rows, columns)),
            output.image_embeds if projected else output.pooler_output,
        )

    def _shares(self, tokens: Tensor) -> Tensor:
        """(b, n, d) to each patch's share in SigLIP's head (b, n), the mean of its heads."""
        head = self._network.head
        probe = head.probe.expand(len(tokens), -1, -1)
        _, shares = head.attention(probe, tokens, tokens, need_weights=True)
        return torch.as_tensor(shares[:, 0])


def load_vision_transformer(name: str, folder: Path, device: str) -> VisionTransformer:
    """Loads a folder of config.json, preprocessor_config.json and safetensors, as `save_pretrained`
    writes it. The version is a hash of these files. Raises ExtractorError."""
    config = folder / "config.json"
    settings = read_json(config)
    kind = settings.get("model_type")
    if not isinstance(kind, str) or kind not in _NETWORKS:
        names = ", ".join(_NETWORKS)
        raise ExtractorError(f"{folder}: model_type is {kind!r}, not one of {names}")
    files = weights_files(folder)
    colours = _Colours.of(folder / "preprocessor_config.json")
    network_class, of_projection = _NETWORKS[kind], {}
    if network_class is CLIPVisionModel and _has_projection(files):
        network_class = CLIPVisionModelWithProjection
        # A whole CLIP tells it for both of its sides, and that of the image side may differ.
        if "projection_dim" in settings:
            of_projection["projection_dim"] = settings["projection_dim"]
    loaded = load_pretrained(folder, network_class, f"a {kind}", **of_projection)
    if loaded.missing:
        # transformers goes on with random numbers in their place.
        raise ExtractorError(f"{folder}: not a whole {kind}, it lacks {loaded.missing[0]}")
    if network_class is SiglipVisionModel and not loaded.network.use_head:
        raise ExtractorError(f"{folder}: a {kind} without its attention head has no global")
    sizes = loaded.network.config.patch_size, loaded.network.config.image_size
    if not all(isinstance(size, int) for size in sizes):
        raise ExtractorError(f"{folder}: patch_size and image_size must be whole numbers")
    version = short_hash([config, folder / "preprocessor_config.json", *files])
    return VisionTransformer(name, version, loaded.network, colours, torch.device(device))


@dataclass(frozen=True)
class _Colours:
    """Normalises a network's input: grey levels times `factor`, minus `mean`, over `deviation`."""

    factor: float
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]

    @classmethod
    def of(cls, path: Path) -> _Colours:
        """Reads the settings of an image processor of transformers. Raises ExtractorError."""
        content = read_json(path)
        factor = content.get("rescale_factor", 1 / 255) if content.get("do_rescale", True) else 1
        try:
            if not content.get("do_normalize", True):
                return cls(float(factor), (0, 0, 0), (1, 1, 1))
            mean, deviation = (_three(content[key]) for key in ("image_mean", "image_std"))
        except (KeyError, TypeError, ValueError):
            raise ExtractorError(
                f"{path}: image_mean, image_std and rescale_factor must be numbers, three of the "
                "first two"
            ) from None
        return cls(float(factor), mean, deviation)


def _three(values: Any) -> tuple[float, float, float]:
    red, green, blue = map(float, values)
    return red, green, blue


def _one_size(network: Any) -> bool:
    """CLIP and SigLIP must be told to interpolate their positions on a grid not their own."""
    return isinstance(network, CLIPVisionModel | CLIPVisionModelWithProjection | SiglipVisionModel)


def _has_projection(files: list[Path]) -> bool:
    for path in files:
        try:
            with safe_open(path, framework="pt") as file:
                if "visual_projection.weight" in file.keys():  # noqa: SIM118
                    return True
        except (OSError, SafetensorError) as error:
            raise ExtractorError(f"{path}: not a safetensors file ({error})") from None
    return False
