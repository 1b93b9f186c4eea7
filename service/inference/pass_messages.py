"""The messages between the service and its model's process, as msgpack."""

from __future__ import annotations

import msgspec

from service.inference.window_buffer import WindowLayout


class Windows(msgspec.Struct):
    """Of one forward pass; `buffer`: which of the window buffers has their numbers."""

    buffer: int
    layouts: list[WindowLayout]


class Ready(msgspec.Struct, tag=True):
    """The model is loaded; the fields are those of ModelInfo."""

    device: str
    dtype: str
    kernel: str
    kernel_note: str | None


class Unfit(msgspec.Struct, tag=True):
    """The checkpoint or the device cannot be used here; the process ends."""

    why: str


class Logits(msgspec.Struct, tag=True):
    """float32, of each window's gallery images."""

    of_windows: list[bytes]


class Failed(msgspec.Struct, tag=True):
    """The pass failed; `why` is for the log."""

    why: str


Answer = Ready | Unfit | Logits | Failed

_windows = msgspec.msgpack.Decoder(Windows)
_answer: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)


def encode(message: Windows | Answer) -> bytes:
    return msgspec.msgpack.encode(message)


def windows_from(data: bytes) -> Windows:
    return _windows.decode(data)


def answer_from(data: bytes) -> Answer:
    return _answer.decode(data)
