"""The spatial-attention detector of AMES (Suma et al., ECCV 2024, after Cao et al., "Unifying Deep
Local and Global Features for Image Search", ECCV 2020): what to describe, and how strong it is."""

from __future__ import annotations

import hashlib
import pickle
import warnings
from pathlib import Path
from zipfile import BadZipFile

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.extraction.extractor import ExtractorError

_NOT_A_TORCH_FILE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    BadZipFile,
    pickle.UnpicklingError,
)
"""What torch.load raises for other files, found by trial."""


class SpatialAttention(nn.Module):
    """Two 1x1 convolutions over a map of features of `channels`. The names of its parts are those
    of the published file."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 1)
        self.bn = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, 1, 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(b, c, rows, columns) to the descriptors (b, c, rows, columns), of length 1 over the
        channels, and the weights (b, rows, columns), above 0."""
        mixed = self.bn(self.conv1(features))
        # The descriptors are taken before the ReLU, the weights after it.
        return F.normalize(mixed, dim=1, eps=1e-15), F.softplus(self.conv2(F.relu(mixed)))[:, 0]


def load_detector(path: Path, channels: int) -> tuple[SpatialAttention, str]:
    """The detector of a file as torch.save writes it, a dictionary whose `state` are the weights,
    and a short hash of the file. Raises ExtractorError, with the file's name."""
    try:
        with warnings.catch_warnings():
            # torch warns of pickles that are not its own before it refuses them.
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    except OSError as error:
        raise ExtractorError(f"{path}: {error.strerror or 'not readable'}") from None
    except _NOT_A_TORCH_FILE as error:
        first = str(error).strip().split("\n")[0]
        raise ExtractorError(f"{path}: not a file of a detector's weights ({first})") from None
    state = content.get("state") if isinstance(content, dict) else None
    if not isinstance(state, dict):
        raise ExtractorError(f"{path}: not a detector, it has no `state`")
    detector = SpatialAttention(channels)
    _check_shapes(path, state, detector.state_dict())
    detector.load_state_dict(state)
    return detector.eval(), digest


def _check_shapes(path: Path, tensors: dict[object, object], expected: dict[str, Tensor]) -> None:
    unlike = sorted(map(str, tensors.keys() ^ expected.keys()))
    if unlike:
        what = "lacks" if unlike[0] in expected else "has also"
        raise ExtractorError(f"{path}: not this detector, its state {what} {unlike[0]!r}")
    for name, reference in expected.items():
        tensor = tensors[name]
        if not isinstance(tensor, Tensor):
            raise ExtractorError(f"{path}: {name} is no tensor")
        if tensor.shape != reference.shape:
            raise ExtractorError(
                f"{path}: {name} has shape {tuple(tensor.shape)}, but the network's features "
                f"need {tuple(reference.shape)}"
            )
