"""Scores that LOCORE's published code gave, and the files it gave them for (tests/data/locore)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from model.config import ExtractorId, LongformerConfig, Scoring
from model.descriptors import ImageDescriptors
from model.window_batch import WindowBatch, WindowShape
from model.windows import Window

REFERENCES = Path(__file__).with_name("data") / "locore"
CASES = ("with_global", "local_only")


@dataclass(frozen=True)
class Reference:
    """`vectors`: the inputs and `expected.logit.MODE`, `expected.softmax.MODE` (batch, gallery)."""

    weights: Path
    config: LongformerConfig
    vectors: dict[str, Tensor]

    @property
    def batch(self) -> WindowBatch:
        """As the published code was given it, what is behind the mask included."""
        locals_ = self._both("local_features")
        windows, images = locals_.shape[:2]
        if self.config.global_dim:
            globals_ = self._both("global_features").squeeze(2)
        else:
            globals_ = torch.zeros(windows, images, 0)
        known = torch.full((windows, images), bool(self.config.global_dim))
        real = torch.ones(windows, images, dtype=torch.bool)
        most, dim = locals_.shape[2:]
        shape = WindowShape(images, most, most, dim, globals_.shape[2])
        return WindowBatch(
            locals_,
            self._both("local_mask") == 0,
            self._both("local_scales"),
            globals_,
            known,
            real,
            torch.arange(1, images).repeat(windows, 1),
            (shape,) * windows,
        )

    def _both(self, name: str) -> Tensor:
        query, gallery = self.vectors[f"query_{name}"], self.vectors[f"gallery_{name}"]
        return torch.cat((query.unsqueeze(1), gallery), dim=1)

    def read(self, scoring: Scoring) -> NDArray[np.bool_]:
        """(batch, gallery): whether the token of the image whose logit is its score by `max-start`
        or `max-end` is a real one. What is behind the mask has a score too, but no client sends it.
        """
        masked = self.vectors["gallery_local_mask"].numpy() != 0
        if scoring == "max-end":
            return np.asarray(~masked[..., -1])
        return np.asarray(~masked[..., 0] | bool(self.config.global_dim))

    def windows(self) -> list[Window]:
        """The same images without what is behind the mask, as a client has them: padding keeps its
        place."""
        batch = self.batch
        windows = []
        for w in range(len(batch.locals)):
            images = [
                ImageDescriptors(
                    (batch.locals[w, i] * mask.unsqueeze(1)).numpy(),
                    batch.scales[w, i].numpy().astype(np.uint8),
                    batch.globals[w, i].numpy() if self.config.global_dim else None,
                    (~mask).numpy(),
                )
                for i, mask in enumerate(batch.local_mask[w])
            ]
            windows.append(Window(images[0], images[1:]))
        return windows


def reference(case: str, **changes: object) -> Reference:
    folder = REFERENCES / case
    sizes = json.loads((folder / "config.json").read_text())
    with_global = bool(sizes["with_global"])
    config = {
        "name": case,
        "extractor": ExtractorId(name="made-up", version="1"),
        "descriptor_dim": sizes["local_dim"],
        "global_dim": sizes["global_dim"] if with_global else 0,
        "descriptors_per_image": sizes["num_local"],
        "dim": sizes["hidden_size"],
        "depth": sizes["num_hidden_layers"],
        "attention_heads": sizes["num_attention_heads"],
        "attention_window": sizes["attention_window"],
        "mlp_dim": sizes["intermediate_size"],
        "positions": sizes["longformer"]["max_position_embeddings"],
        "project_locals": sizes["local_dim"] != sizes["hidden_size"],
        "project_global": with_global,
    }
    return Reference(
        folder / "model.safetensors",
        LongformerConfig.model_validate(config | changes),
        load_file(folder / "vectors.safetensors"),
    )
