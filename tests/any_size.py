"""A re-ranker that reads descriptors of any size, by Chamfer similarity alone, and a service of it:
`python -m tests.any_size` takes the settings of `locore serve`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from model.checkpoint import LoadedModel
from model.config import ExtractorId, ModelConfig, RerankDefaults
from model.descriptors import ImageDescriptors
from model.reranker import ListReranker
from model.windows import Window
from service.app import create_app
from service.server import DrainingServer, listen
from service.settings import Settings
from service.watch.logs import configure_logging

COMMAND = (sys.executable, "-m", "tests.any_size")


class AnySizeConfig(ModelConfig):
    backbone: Literal["chamfer"] = "chamfer"

    @property
    def extra_tokens(self) -> int:
        return 0


CONFIG = AnySizeConfig(
    name="any size",
    extractor=ExtractorId(name="made-up", version="1"),
    descriptors_per_image=6,
    rerank=RerankDefaults(alpha=0),
)


@dataclass(frozen=True, eq=False)
class _Windows:
    windows: Sequence[Window]

    def to(self, _: torch.device) -> _Windows:
        return self


class ChamferReranker(ListReranker):
    def collate(self, windows: Sequence[Window]) -> Any:
        return _Windows(windows)

    def image_logits(self, batch: Any) -> Tensor:
        longest = max(len(window.gallery) for window in batch.windows)
        logits = torch.zeros(len(batch.windows), longest)
        for row, window in zip(logits, batch.windows, strict=True):
            for place, image in enumerate(window.gallery):
                row[place] = chamfer(window.query, image)
        return logits


def chamfer(query: ImageDescriptors, image: ImageDescriptors) -> float:
    """The mean over the query's locals of the best cosine in the image."""
    one, other = (i.without_padding().locals.astype(np.float32) for i in (query, image))
    return float((one @ other.T).max(1).mean())


if __name__ == "__main__":
    settings = Settings()
    configure_logging(settings.log_format)
    model = LoadedModel(ChamferReranker(CONFIG), torch.device("cpu"), torch.float32, "none", None)
    listening = listen(settings.host, settings.port)
    DrainingServer(create_app(settings, model), settings).run_to_end(listening)
