"""`python -m service.picture_extraction.child NAME COUNT CONNECTION`: an extractor's own process.

It has a low priority and one thread, so it uses the time that re-ranking leaves, and the kernel
kills it first if memory is short. It ends with the connection, which is closed when the service
ends.
"""

from __future__ import annotations

import contextlib
import io
import signal
import sys
from multiprocessing.connection import Connection

import torch

from model.extraction.extractor import Extractor, ExtractorError, NoDescriptorsError
from model.extraction.pixels import FORMATS, PixelsError, TooManyPixelsError, read_pixels
from model.extraction.registry import load_extractor
from model.extraction.thumbnail import thumbnail
from service.machine.priority import give_way
from service.picture_extraction.messages import (
    Answer,
    Failed,
    NotInstalled,
    Picture,
    Ready,
    Refused,
    described,
    encode,
    picture_from,
)


def serve(connection: Connection, name: str, count: int) -> None:
    """Answers pictures one by one until the connection ends."""
    try:
        extractor = load_extractor(name)
    except ExtractorError as error:
        connection.send_bytes(encode(NotInstalled(str(error))))
        return
    connection.send_bytes(encode(Ready(extractor.name, extractor.version)))
    # The other end is closed when the service ends, however it ends.
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            picture = picture_from(connection.recv_bytes())
            connection.send_bytes(encode(describe(extractor, picture, count)))


def describe(extractor: Extractor, picture: Picture, count: int) -> Answer:
    """`count`: the largest number of locals."""
    try:
        pixels = read_pixels(io.BytesIO(picture.data))
        webp = thumbnail(pixels.image) if picture.thumbnail else None
        return described(extractor.extract(pixels.image, count), pixels.size, webp)
    except TooManyPixelsError as error:
        return Refused(f"has {error}", error.max_pixels)
    except PixelsError:
        return Refused(f"not a readable picture; these formats are read: {', '.join(FORMATS)}")
    except NoDescriptorsError as error:
        return Refused(str(error))
        # Whatever an extractor raises for one picture, the next picture may work.
    except Exception as error:  # noqa: BLE001
        return Failed(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    # A service that drains still needs it.
    for sig in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sig, signal.SIG_IGN)
    give_way()
    torch.set_num_threads(1)
    serve(Connection(int(sys.argv[3])), sys.argv[1], int(sys.argv[2]))
