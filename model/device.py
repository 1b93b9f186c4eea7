"""Where a model computes."""

from __future__ import annotations

import torch


class DeviceError(ValueError):
    """A device that this machine does not have; the message is one line."""


def device_named(name: str) -> torch.device:
    """`auto` takes a GPU where there is one. Raises DeviceError."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(f"no device {name} on this machine")
    return device
