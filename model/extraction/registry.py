"""The registry of extractors, which are loaded by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from model.extraction.extractor import Extractor, ExtractorError, ExtractorOptions

HUGGING_FACE = "hf:"
"""The prefix of a folder with a vision transformer."""


@dataclass(frozen=True)
class RegisteredExtractor:
    """`load` imports the extractor's own packages, those of the extra `extra`, so that one
    extractor does not need another's; `options` are the fields of ExtractorOptions it takes."""

    load: Callable[[ExtractorOptions], Extractor]
    extra: str
    options: frozenset[str] = frozenset()
    batches: bool = False


def _efficientnet_lite(size: Literal[0, 1, 2]) -> Callable[[ExtractorOptions], Extractor]:
    def load(_: ExtractorOptions) -> Extractor:
        from model.extraction.efficientnet_lite import load_lite

        return load_lite(size)

    return load


def _dinov2_vitb14_reg(options: ExtractorOptions) -> Extractor:
    from model.extraction.dinov2 import load_dinov2

    return load_dinov2(options)


def _sift(_: ExtractorOptions) -> Extractor:
    from model.extraction.sift import load_sift

    return load_sift()


def _vision_transformer(name: str) -> Callable[[ExtractorOptions], Extractor]:
    def load(options: ExtractorOptions) -> Extractor:
        from model.extraction.vision_transformer import load_vision_transformer

        folder = Path(name.removeprefix(HUGGING_FACE))
        return load_vision_transformer(name, folder, options.device or "cpu")

    return load


EXTRACTORS: dict[str, RegisteredExtractor] = {
    "efficientnet-lite0": RegisteredExtractor(_efficientnet_lite(0), "extract"),
    "efficientnet-lite1": RegisteredExtractor(_efficientnet_lite(1), "extractors"),
    "efficientnet-lite2": RegisteredExtractor(_efficientnet_lite(2), "extractors"),
    "dinov2-vitb14-reg": RegisteredExtractor(
        _dinov2_vitb14_reg,
        "longformer",
        frozenset({"weights", "detector", "scales", "device"}),
        batches=True,
    ),
    "sift": RegisteredExtractor(_sift, "extractors"),
}

NAMES = (*sorted(EXTRACTORS), f"{HUGGING_FACE}FOLDER")
"""The names as shown to users."""


def registered(name: str) -> RegisteredExtractor:
    """The extractor of that name. Raises ExtractorError if there is none."""
    if name.startswith(HUGGING_FACE):
        load = _vision_transformer(name)
        return RegisteredExtractor(load, "extractors", frozenset({"device"}), batches=True)
    try:
        return EXTRACTORS[name]
    except KeyError:
        raise ExtractorError(f"no extractor {name!r}; there are: {', '.join(NAMES)}") from None


def load_extractor(name: str, options: ExtractorOptions | None = None) -> Extractor:
    """Raises ExtractorError."""
    options = options or ExtractorOptions()
    entry = registered(name)
    refused = [option for option in options.option_names() if option not in entry.options]
    if refused:
        raise ExtractorError(f"{name} takes no {' and no '.join(refused)}")
    try:
        return entry.load(options)
    except ModuleNotFoundError as error:
        raise ExtractorError(
            f"{name} needs the extra [{entry.extra}], pip install 'locore[{entry.extra}]': {error}"
        ) from None
