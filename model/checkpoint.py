"""Checkpoints on disk: `NAME.safetensors` (tensors) beside `NAME.json` (`model.config_file`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.overrides import TorchFunctionMode

from model.config import AmesConfig, ElvisConfig, LongformerConfig, MambaConfig, ModelConfig
from model.config_file import AnyConfig, CheckpointError, read_config, write_config
from model.kernel import select_kernel
from model.model_info import ModelInfo
from model.pairs.ames import AmesReranker
from model.pairs.elvis import ElvisReranker
from model.projected.projected_config import ProjectedConfig
from model.projected.projected_reranker import ProjectedReranker
from model.reranker import ListReranker, MambaReranker, score_windows
from model.windows import Window


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A re-ranker in evaluation mode, its device, and its kernel for the scan or for the
    Longformer's attention. `kernel_note` says why it is not the fastest one."""

    reranker: ListReranker
    device: torch.device
    dtype: torch.dtype
    kernel: str
    kernel_note: str | None

    passes_at_once: ClassVar[int] = 1

    @property
    def config(self) -> ModelConfig:
        return self.reranker.config

    @property
    def info(self) -> ModelInfo:
        dtype = str(self.dtype).removeprefix("torch.")
        return ModelInfo(self.config, str(self.device), dtype, self.kernel, self.kernel_note)

    def score(self, windows: Sequence[Window]) -> list[NDArray[np.float32]]:
        """As Scorer.score, in this process."""
        return score_windows(self.reranker, windows, self.device)


def save_checkpoint(reranker: ListReranker, path: Path) -> None:
    """Writes weights and config; `path` ends in `.safetensors`."""
    tensors = {name: t.detach().cpu().contiguous() for name, t in reranker.state_dict().items()}
    save_file(tensors, path)
    write_config(reranker.config, path)


def load_checkpoint(
    path: Path, device: torch.device, dtype: torch.dtype = torch.float32
) -> LoadedModel:
    """Reads a checkpoint for inference on `device`; its config is beside it.

    Only safetensors are read, since a pickle could run code. Raises CheckpointError.
    """
    return load_weights(path, read_config(path), device, dtype)


def load_weights(
    path: Path,
    config: AnyConfig,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> LoadedModel:
    """Reads each tensor once, so loading takes little more memory than the weights.

    Raises CheckpointError for a missing or damaged file, and for a tensor that is missing,
    superfluous, of another shape than the config's, or not of floating-point numbers.
    """
    reranker, kernel, note = new_network(config, device, dtype, empty=True)
    expected = {name: tensor.shape for name, tensor in reranker.state_dict().items()}
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            shapes = {name: torch.Size(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            check_shapes(path, expected, shapes)
            tensors = {name: file.get_tensor(name) for name in expected}
            integers = [name for name, t in tensors.items() if not t.is_floating_point()]
            if integers:
                raise CheckpointError(f"{path}: {integers[0]} is of {tensors[integers[0]].dtype}")
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from None
    reranker.load_state_dict(tensors, assign=True)
    return LoadedModel(reranker.to(dtype).eval(), device, dtype, kernel, note)


class _Unfilled(TorchFunctionMode):
    """Weights are allocated but not filled at random, so they take no memory yet. With torch's
    `meta` device, which is meant for this, a network's own sums would import the compiler, which
    takes a second or two."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        keywords = kwargs or {}
        if func.__name__ in ("normal_", "uniform_", "kaiming_uniform_"):
            return keywords["tensor"] if "tensor" in keywords else args[0]
        return func(*args, **keywords)


def new_network(
    config: ModelConfig, device: torch.device, dtype: torch.dtype, *, empty: bool = False
) -> tuple[ListReranker, str, str | None]:
    """Returns a re-ranker for `device` with random weights, or, if `empty`, with weights that take
    no memory; the name of its kernel; and why that is not the fastest.

    Raises CheckpointError if packages that it needs are not installed.
    """
    filled: AbstractContextManager[object] = _Unfilled() if empty else nullcontext()
    if isinstance(config, MambaConfig | ProjectedConfig):
        # Not within it: a kernel is tested with real numbers.
        kernel, note = select_kernel(config, device, dtype)
        with filled:
            hybrid = (
                MambaReranker(config, kernel.scan)
                if isinstance(config, MambaConfig)
                else ProjectedReranker(config, kernel.scan)
            )
        return hybrid, kernel.name, note
    if isinstance(config, ElvisConfig | AmesConfig):
        with filled:
            pairs = (
                ElvisReranker(config) if isinstance(config, ElvisConfig) else AmesReranker(config)
            )
        return pairs, "torch", None
    if not isinstance(config, LongformerConfig):
        raise TypeError(f"no backbone for {type(config).__name__}")
    try:
        from model.longformer import LongformerReranker
    except ModuleNotFoundError as error:
        raise CheckpointError(
            f"{config.name}: a Longformer needs the extra [longformer], pip install "
            f"'locore[longformer]': {error}"
        ) from None
    with filled:
        return LongformerReranker(config), "transformers", None


def check_shapes(
    path: Path, expected: Mapping[str, torch.Size], actual: Mapping[str, torch.Size]
) -> None:
    """Raises CheckpointError naming the first tensor of `path` that does not fit the network."""
    for name in sorted(expected.keys() | actual.keys()):
        if expected.get(name) != actual.get(name):
            raise CheckpointError(
                f"{path}: {name} is {_shape(actual.get(name))} in the file, "
                f"{_shape(expected.get(name))} by the config"
            )


def _shape(shape: torch.Size | None) -> str:
    return "absent" if shape is None else str(tuple(shape))
