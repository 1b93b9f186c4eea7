"""DINOv2 ViT-B/14 with registers (Oquab et al., 2024; Darcet et al., ICLR 2024) under AMES's
detector: the descriptors that LOCORE is trained on.

Locals: the network's normalised patch tokens on their grid, mixed by the detector, which also
weighs them. Global: their weighted mean, of length 1, over the scales; the CLS token is not used.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from numpy.typing import NDArray
from transformers import Dinov2WithRegistersModel

from model.extraction.detector import SpatialAttention, load_detector
from model.extraction.extractor import ExtractorError, ExtractorOptions
from model.extraction.patches import PatchExtractor, PatchGrid, PatchSizes
from model.extraction.pretrained import load_pretrained, short_hash, weights_files

HUB_ID = "facebook/dinov2-with-registers-base"
NAME = "dinov2-vitb14-reg"
LONGEST_SIDE = 770
"""Pixels of an image's longer side at scale 1."""
PATCH = 14
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class DinoV2(PatchExtractor):
    """See the module. `load_dinov2` reads the weights."""

    def __init__(
        self,
        network: Any,
        detector: SpatialAttention,
        version: str,
        scales: tuple[float, ...],
        device: torch.device,
    ) -> None:
        width = int(network.config.hidden_size)
        super().__init__(NAME, version, PatchSizes(PATCH, LONGEST_SIDE, scales), width, width)
        self._network = network.to(device).eval()
        self._detector = detector.to(device).eval()
        self._device = device
        # CLS and the registers come before the patches.
        self._leading = 1 + int(network.config.num_register_tokens)

    def _grid(self, pixels: NDArray[np.uint8]) -> PatchGrid:
        rows, columns = (side // PATCH for side in pixels.shape[1:3])
        x = torch.from_numpy(pixels).to(self._device).float() / 255
        x = (x - x.new_tensor(_MEAN)) / x.new_tensor(_DEVIATION)
        tokens = self._network(pixel_values=x.permute(0, 3, 1, 2)).last_hidden_state
        grid = tokens[:, self._leading :].unflatten(1, (rows, columns)).permute(0, 3, 1, 2)
        features, weights = self._detector(grid)
        descriptors = features.permute(0, 2, 3, 1)
        return PatchGrid(descriptors, weights, (weights[..., None] * descriptors).mean(dim=(1, 2)))


def load_dinov2(options: ExtractorOptions) -> DinoV2:
    """Raises ExtractorError. Weights that are not named come from the Hugging Face hub."""
    if options.detector is None:
        raise ExtractorError(
            f"{NAME} needs --detector FILE, the dinov2_detector.pt that AMES publishes"
        )
    scales = options.scales or (1.0,)
    network, weights = _load_network(options.weights or _from_hub())
    detector, detector_hash = load_detector(options.detector, network.config.hidden_size)
    version = f"{weights}-{detector_hash}-{','.join(map(repr, scales))}"
    return DinoV2(network, detector, version, scales, torch.device(options.device or "cpu"))


def _from_hub() -> Path:
    try:
        return Path(snapshot_download(HUB_ID, allow_patterns=["config.json", "*.safetensors*"]))
    except (OSError, HfHubHTTPError) as error:
        first = str(error).strip().split("\n")[0]
        raise ExtractorError(
            f"{HUB_ID} cannot be had from the Hugging Face hub ({first}); --weights FOLDER takes "
            "a folder with its config.json and model.safetensors"
        ) from None


def _load_network(folder: Path) -> tuple[Any, str]:
    """The network of a folder as `save_pretrained` writes it, and a short hash of its files."""
    config = folder / "config.json"
    if not config.is_file():
        raise ExtractorError(f"{folder}: has no config.json, as a folder of DINOv2's weights has")
    files = weights_files(folder)
    loaded = load_pretrained(folder, Dinov2WithRegistersModel, "a DINOv2")
    network = loaded.network
    unlike = [*loaded.missing, *loaded.unexpected]
    if unlike or network.config.model_type != "dinov2_with_registers":
        what = f", {unlike[0]} for one" if unlike else ""
        raise ExtractorError(f"{folder}: not a DINOv2 with registers, its weights differ{what}")
    if network.config.patch_size != PATCH:
        raise ExtractorError(
            f"{folder}: patches of {network.config.patch_size} pixels, but {NAME} has {PATCH}"
        )
    return network, short_hash([config, *files])
