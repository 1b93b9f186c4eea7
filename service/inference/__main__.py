"""`python -m service.inference CHECKPOINT DEVICE DTYPE CONNECTION BUFFERS`: the model's process.

Its forward passes have an interpreter lock of their own, so neither they nor the event loop of the
service wait for the other's Python. It ends with the connection, which is closed when the service
ends.
"""

# ruff: noqa: E402
from __future__ import annotations

import gc

# What is imported and loaded stays: to look for garbage among it takes a quarter of the start.
gc.disable()

import contextlib
import signal
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from model.checkpoint import LoadedModel, load_checkpoint
from model.config_file import CheckpointError
from model.device import DeviceError, device_named
from service.inference.pass_messages import (
    Answer,
    Failed,
    Logits,
    Ready,
    Unfit,
    Windows,
    encode,
    windows_from,
)
from service.inference.window_buffer import WindowBuffer


def serve(connection: Connection, buffers: Sequence[WindowBuffer], model: LoadedModel) -> None:
    """Scores batch after batch until the connection ends."""
    info = model.info
    ready = Ready(info.device, info.dtype, info.kernel, info.kernel_note)
    connection.send_bytes(encode(ready))
    # The other end is closed when the service ends, however it ends.
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            windows = windows_from(connection.recv_bytes())
            connection.send_bytes(encode(logits(model, buffers[windows.buffer], windows)))


def logits(model: LoadedModel, buffer: WindowBuffer, windows: Windows) -> Answer:
    try:
        scores = model.score(buffer.read(windows.layouts))
        return Logits([row.tobytes() for row in scores])
    # Whatever a model raises for one batch, the next one may work.
    except Exception as error:  # noqa: BLE001
        return Failed(f"{type(error).__name__}: {error}")


def main(
    checkpoint: str,
    device: str,
    dtype: str,
    connection: Connection,
    buffers: Sequence[WindowBuffer],
) -> None:
    try:
        numbers: torch.dtype = getattr(torch, dtype)
        model = load_checkpoint(Path(checkpoint), device_named(device), numbers)
    except (CheckpointError, DeviceError) as error:
        connection.send_bytes(encode(Unfit(str(error))))
        return
    gc.freeze()
    gc.enable()
    serve(connection, buffers, model)


if __name__ == "__main__":
    # A service that drains still needs it.
    for sig in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sig, signal.SIG_IGN)
    checkpoint, device, dtype, connection, *descriptors = sys.argv[1:]
    buffers = [WindowBuffer(int(descriptor)) for descriptor in descriptors]
    main(checkpoint, device, dtype, Connection(int(connection)), buffers)
