"""What a loaded model is, without the model."""

from __future__ import annotations

from dataclasses import dataclass

from model.config import ModelConfig


@dataclass(frozen=True)
class ModelInfo:
    """`kernel`: of the scan, or of the Longformer's attention; `kernel_note`: why it is not the
    fastest one."""

    config: ModelConfig
    device: str
    dtype: str
    kernel: str
    kernel_note: str | None
