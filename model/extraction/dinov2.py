"""DINOv2 ViT-B/14 with registers (Oquab et al., 2024; Darcet et al., ICLR 2024) under AMES's
detector: the descriptors that LOCORE is trained on.

Locals: the network's normalised patch tokens on their grid, mixed by the detector, which also
weighs them. Global: their weighted mean, of length 1, over the scales; the CLS token is not used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, StrictDataclassError
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional as F
from transformers import Dinov2WithRegistersModel
from transformers.utils import logging as log

from model.extraction.detector import SpatialAttention, load_detector
from model.extraction.extractor import (
    Box,
    ExtractedImage,
    ExtractorError,
    ExtractorOptions,
    NoDescriptorsError,
    PreparedImage,
)
from model.extraction.resizing import resized

HUB_ID = "facebook/dinov2-with-registers-base"
LONGEST_SIDE = 770
"""Pixels of an image's longer side at scale 1."""
PATCH = 14
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class DinoV2:
    """See the module. `load_dinov2` reads the weights."""

    name = "dinov2-vitb14-reg"

    def __init__(
        self,
        network: Any,
        detector: SpatialAttention,
        version: str,
        scales: tuple[float, ...],
        device: torch.device,
    ) -> None:
        self.version = version
        self.descriptor_dim = self.global_dim = int(network.config.hidden_size)
        self._network = network.to(device).eval()
        self._detector = detector.to(device).eval()
        self._scales = scales
        self._device = device
        # CLS and the registers come before the patches.
        self._leading = 1 + int(network.config.num_register_tokens)

    def extract(self, image: Image.Image, count: int) -> ExtractedImage:
        """Raises NoDescriptorsError."""
        (found,) = self.extract_batch([self.prepare(image)], count)
        if isinstance(found, NoDescriptorsError):
            raise found
        return found

    def prepare(self, image: Image.Image, box: Box | None = None) -> PreparedImage:
        """A part is resized as far as the whole image would be, as the published code does."""
        left, top, right, bottom = _within(image, box)
        part = np.asarray(image.convert("RGB").crop((left, top, right, bottom)))
        width, height = image.size
        factors = (scale * (LONGEST_SIDE / max(width, height)) for scale in self._scales)
        return PreparedImage(
            tuple(
                resized(part, _patches(right - left, f) * PATCH, _patches(bottom - top, f) * PATCH)
                for f in factors
            ),
            (left / width, top / height),
            ((right - left) / width, (bottom - top) / height),
        )

    @torch.inference_mode()
    def extract_batch(
        self, images: Sequence[PreparedImage], count: int
    ) -> list[ExtractedImage | NoDescriptorsError]:
        steps = [
            self._step(np.stack([image.pixels[number] for image in images]))
            for number in range(len(self._scales))
        ]
        pooled = [F.normalize((w[..., None] * x).mean(dim=(1, 2)), dim=-1) for x, w in steps]
        globals_ = F.normalize(torch.stack(pooled).mean(dim=0), dim=-1).cpu().numpy()
        locals_ = torch.cat([x.flatten(1, 2) for x, _ in steps], dim=1)
        weights = torch.cat([w.flatten(1) for _, w in steps], dim=1)
        places = np.concatenate([_centres(*w.shape[1:]) for _, w in steps])
        scales = np.repeat(np.arange(len(steps)), [w[0].numel() for _, w in steps])
        # A stable sort: equal weights stay in the order of the grid, alone and in a batch.
        chosen = weights.sort(dim=1, descending=True, stable=True).indices[:, :count]
        found: list[ExtractedImage | NoDescriptorsError] = []
        for image, x, w, rows, global_ in zip(
            images, locals_, weights, chosen, globals_, strict=True
        ):
            strongest = rows.cpu().numpy()
            found.append(
                _checked(
                    ExtractedImage(
                        np.asarray(image.corner + places[strongest] * image.extent, np.float32),
                        scales[strongest].astype(np.uint8),
                        w[rows].cpu().numpy(),
                        x[rows].cpu().numpy(),
                        global_,
                    )
                )
            )
        return found

    def _step(self, pixels: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
        """Images (b, height, width, 3) to descriptors (b, rows, columns, d) and their weights
        (b, rows, columns)."""
        rows, columns = (side // PATCH for side in pixels.shape[1:3])
        x = torch.from_numpy(pixels).to(self._device).float() / 255
        x = (x - x.new_tensor(_MEAN)) / x.new_tensor(_DEVIATION)
        tokens = self._network(pixel_values=x.permute(0, 3, 1, 2)).last_hidden_state
        grid = tokens[:, self._leading :].unflatten(1, (rows, columns)).permute(0, 3, 1, 2)
        features, weights = self._detector(grid)
        return features.permute(0, 2, 3, 1), weights


def _within(image: Image.Image, box: Box | None) -> tuple[int, int, int, int]:
    width, height = image.size
    left, top, right, bottom = (int(side) for side in box or (0, 0, width, height))
    inside = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
    if inside[0] >= inside[2] or inside[1] >= inside[3]:
        raise NoDescriptorsError(f"no pixel of its {width} x {height} is in the box {box}")
    return inside


def _patches(side: int, factor: float) -> int:
    return max(round(factor * side / PATCH), 1)


def _centres(rows: int, columns: int) -> NDArray[np.float64]:
    """x and y of every patch (rows * columns, 2) as fractions, row by row."""
    y, x = np.divmod(np.arange(rows * columns), columns)
    return np.stack(((x + 0.5) / columns, (y + 0.5) / rows), axis=1)


def _checked(found: ExtractedImage) -> ExtractedImage | NoDescriptorsError:
    if not all(np.isfinite(a).all() for a in (found.weights, found.descriptors, found.global_)):
        return NoDescriptorsError("the network makes NaN or infinity of it")
    if not (found.descriptors.any(axis=1).all() and found.global_.any()):
        return NoDescriptorsError("the network makes a descriptor of zeros of it")
    return found


def load_dinov2(options: ExtractorOptions) -> DinoV2:
    """Raises ExtractorError. Weights that are not named come from the Hugging Face hub."""
    if options.detector is None:
        raise ExtractorError(
            f"{DinoV2.name} needs --detector FILE, the dinov2_detector.pt that AMES publishes"
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
    if not (folder / "config.json").is_file():
        raise ExtractorError(f"{folder}: has no config.json, as a folder of DINOv2's weights has")
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ExtractorError(f"{folder}: has no model.safetensors; other formats are not read")
    try:
        with _quiet_transformers():
            loaded: Any = Dinov2WithRegistersModel.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
                dtype=torch.float32,
            )
            network, report = loaded
    except (
        OSError,
        ValueError,
        RuntimeError,
        TypeError,
        KeyError,
        SafetensorError,
        StrictDataclassError,
    ) as error:
        first = str(error).strip().split("\n")[0]
        raise ExtractorError(f"{folder}: not the weights of a DINOv2 ({first})") from None
    unlike = sorted(report["missing_keys"]) + sorted(report["unexpected_keys"])
    if unlike or network.config.model_type != "dinov2_with_registers":
        what = f", {unlike[0]} for one" if unlike else ""
        raise ExtractorError(f"{folder}: not a DINOv2 with registers, its weights differ{what}")
    if network.config.patch_size != PATCH:
        raise ExtractorError(
            f"{folder}: patches of {network.config.patch_size} pixels, where {DinoV2.name} has "
            f"{PATCH}"
        )
    digest = hashlib.sha256()
    for path in (folder / "config.json", *files):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return network, digest.hexdigest()[:12]


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Without its bars and tables: what they would say becomes an ExtractorError."""
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()  # type: ignore[no-untyped-call]
    log.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()  # type: ignore[no-untyped-call]
