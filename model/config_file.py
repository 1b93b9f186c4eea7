"""The config of a checkpoint: `NAME.json` beside `NAME.safetensors`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

from pydantic import Field, TypeAdapter, ValidationError

from model.config import (
    AmesConfig,
    ElvisConfig,
    LongformerConfig,
    MambaConfig,
    ModelConfig,
    reason,
)
from model.projected.projected_config import ProjectedConfig


class CheckpointError(ValueError):
    """A checkpoint that cannot be loaded; the message names the file and says why."""


AnyConfig: TypeAlias = MambaConfig | ProjectedConfig | LongformerConfig | ElvisConfig | AmesConfig
"""The config of any backbone."""

_CONFIGS: TypeAdapter[AnyConfig] = TypeAdapter(
    Annotated[AnyConfig, Field(discriminator="backbone")]
)


def read_config(path: Path) -> AnyConfig:
    """The config beside a checkpoint file. Raises CheckpointError."""
    if path.suffix != ".safetensors":
        raise CheckpointError(f"{path}: not a .safetensors file; pickled weights are not loaded")
    json_path = path.with_suffix(".json")
    try:
        return _CONFIGS.validate_json(json_path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"{json_path}: no such file") from None
    except OSError as error:
        raise CheckpointError(f"{json_path}: cannot be read ({error.strerror})") from None
    except ValidationError as error:
        raise CheckpointError(f"{json_path}: {reason(error)}") from None


def write_config(config: ModelConfig, path: Path) -> None:
    """Writes the config beside a checkpoint file."""
    path.with_suffix(".json").write_text(config.model_dump_json(indent=2) + "\n")
