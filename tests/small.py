"""Windows and the logits that `small` gave them when it was the default (tests/data/small)."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from model.descriptors import ImageDescriptors
from model.windows import Window

_REFERENCE = Path(__file__).with_name("data") / "small" / "reference.safetensors"


def reference() -> list[tuple[Window, NDArray[np.float32]]]:
    tensors = load_file(_REFERENCE)
    windows: list[tuple[Window, NDArray[np.float32]]] = []
    for place in count():
        if f"{place}.logits" not in tensors:
            return windows
        globals_ = iter(tensors[f"{place}.globals"])
        ends = tensors[f"{place}.counts"].cumsum()
        images = [
            ImageDescriptors(locals_, scales, next(globals_) if has_global else None)
            for locals_, scales, has_global in zip(
                np.split(tensors[f"{place}.locals"], ends[:-1]),
                np.split(tensors[f"{place}.scales"], ends[:-1]),
                tensors[f"{place}.has_global"],
                strict=True,
            )
        ]
        windows.append((Window(images[0], images[1:]), tensors[f"{place}.logits"]))
    raise AssertionError
