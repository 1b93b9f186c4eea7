"""The checkpoints that come with the package, by name."""

from __future__ import annotations

from pathlib import Path

from model.config import DEFAULT_CHECKPOINT

_WEIGHTS = DEFAULT_CHECKPOINT.parent


def shipped_names() -> list[str]:
    return sorted(path.stem for path in _WEIGHTS.glob("*.safetensors"))


def checkpoint_file(checkpoint: Path) -> Path:
    """The file of a shipped checkpoint if `checkpoint` is a bare name, without a folder and a
    suffix; else `checkpoint` itself.

    Raises ValueError for a name that no shipped checkpoint has.
    """
    name = checkpoint.name
    if checkpoint.suffix or checkpoint != Path(name):
        return checkpoint
    if name not in shipped_names():
        raise ValueError(
            f"{name!r} is not a shipped checkpoint ({', '.join(shipped_names())}), nor a "
            ".safetensors file"
        )
    return _WEIGHTS / f"{name}.safetensors"
