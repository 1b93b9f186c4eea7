"""Networks from local folders, as `save_pretrained` of transformers writes them.

Only safetensors are read, nothing is fetched, and no code of the folder runs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers.utils import logging as log

from model.extraction.extractor import ExtractorError

_NOT_A_NETWORK = (
    OSError,
    ValueError,
    RuntimeError,
    TypeError,
    KeyError,
    SafetensorError,
    StrictDataclassError,
)
"""What transformers raises for other folders, found by trial."""


@dataclass(frozen=True, eq=False)
class Pretrained:
    """`missing`: weights that the folder lacks and that are random numbers now; `unexpected`: those
    that it has beside."""

    network: Any
    missing: Sequence[str]
    unexpected: Sequence[str]


def read_json(path: Path) -> dict[str, Any]:
    """The object of a JSON file. Raises ExtractorError."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ExtractorError(f"{path.parent}: has no {path.name}") from None
    except (OSError, ValueError) as error:
        raise ExtractorError(f"{path}: not a readable JSON file ({error})") from None
    if not isinstance(content, dict):
        raise ExtractorError(f"{path}: not a JSON object")
    return content


def weights_files(folder: Path) -> list[Path]:
    """Raises ExtractorError if there are none."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ExtractorError(f"{folder}: has no model.safetensors; other formats are not read")
    return files


def load_pretrained(folder: Path, network: Any, kind: str, **settings: Any) -> Pretrained:
    """`network`: a class of transformers; `kind`: what its weights are said to be; `settings`: of
    its configuration, before those of the folder. Raises ExtractorError."""
    try:
        with _quiet_transformers():
            loaded, report = network.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
                dtype=torch.float32,
                **settings,
            )
    except _NOT_A_NETWORK as error:
        first = str(error).strip().split("\n")[0]
        raise ExtractorError(f"{folder}: not the weights of {kind} ({first})") from None
    return Pretrained(loaded, sorted(report["missing_keys"]), sorted(report["unexpected_keys"]))


def short_hash(files: Sequence[Path]) -> str:
    """A short hash of the contents of files, in their order."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:12]


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Silences its bars and tables; problems become an ExtractorError."""
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()
