"""Checkpoints on disk: `NAME.safetensors` (tensors) beside `NAME.json` (the config)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from model.config import ModelConfig
from model.reranker import MambaReranker
from model.scan import ScanKernel, select_kernel


class CheckpointError(ValueError):
    """A checkpoint that cannot be loaded; the message names the file and says why."""


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A re-ranker in evaluation mode, where it runs, and by which scan."""

    reranker: MambaReranker
    device: torch.device
    dtype: torch.dtype
    kernel: ScanKernel
    kernel_note: str | None

    @property
    def config(self) -> ModelConfig:
        return self.reranker.config


def save_checkpoint(reranker: MambaReranker, path: Path) -> None:
    """Write weights and config; `path` ends in `.safetensors`."""
    tensors = {name: t.detach().cpu().contiguous() for name, t in reranker.state_dict().items()}
    save_file(tensors, path)
    path.with_suffix(".json").write_text(reranker.config.model_dump_json(indent=2) + "\n")


def read_config(path: Path) -> ModelConfig:
    """The config beside a checkpoint file. Raises CheckpointError."""
    beside = path.with_suffix(".json")
    try:
        return ModelConfig.model_validate_json(beside.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"{beside}: no such file") from None
    except OSError as error:
        raise CheckpointError(f"{beside}: cannot be read ({error.strerror})") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "config"
        raise CheckpointError(f"{beside}: {where}: {first['msg']}") from None


def load_checkpoint(
    path: Path, device: torch.device, dtype: torch.dtype = torch.float32
) -> LoadedModel:
    """Read a checkpoint for inference on `device`.

    Only safetensors are read: a pickle could run code. Raises CheckpointError for a missing or
    damaged file, and where a tensor is missing, superfluous or not of the config's shape.
    """
    if path.suffix != ".safetensors":
        raise CheckpointError(f"{path}: not a .safetensors file; pickled weights are not loaded")
    config = read_config(path)
    kernel, note = select_kernel(device, dtype)
    with torch.device("meta"):
        reranker = MambaReranker(config, kernel.scan)
    expected = {name: tensor.shape for name, tensor in reranker.state_dict().items()}
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            found = {name: torch.Size(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            for name in expected.keys() | found.keys():
                if expected.get(name) != found.get(name):
                    raise CheckpointError(
                        f"{path}: {name} is {_shape(found.get(name))} in the file, "
                        f"{_shape(expected.get(name))} by the config"
                    )
            tensors = {name: file.get_tensor(name) for name in expected}
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from None
    reranker.load_state_dict(tensors, assign=True)
    return LoadedModel(reranker.to(dtype).eval(), device, dtype, kernel, note)


def _shape(shape: torch.Size | None) -> str:
    return "absent" if shape is None else str(tuple(shape))
