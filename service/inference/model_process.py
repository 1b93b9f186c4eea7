"""The model in a process of its own, for use from two threads of the service.

A forward pass asks for the interpreter lock hundreds of times. In the service's own process each
of them waits for the event loop's Python, and the event loop for the pass. While the process
computes one pass, the windows of the next are written, so that it need not wait for them."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import structlog
from numpy.typing import NDArray

from model.config import ModelConfig
from model.config_file import read_config
from model.model_info import ModelInfo
from model.windows import Window
from service.inference.pass_messages import (
    Answer,
    Failed,
    Logits,
    Ready,
    Unfit,
    Windows,
    answer_from,
    encode,
)
from service.inference.window_buffer import WindowBuffer
from service.machine.memory import resident_memory
from service.watch.metrics import MODEL_MEMORY

log = structlog.get_logger(__name__)

STUCK_SECONDS = 120.0
"""A start or a forward pass that takes longer will not come back."""


class UnfitModelError(ValueError):
    """A checkpoint or a device that cannot be used here; the message is one line."""


class ModelProcessError(RuntimeError):
    """The model's process ended, or its pass failed."""


class ModelProcess:
    """A scorer in a process of its own. A process that ended is started again by the next pass.
    As many threads as `passes_at_once` may call `score`, and any other one `close`."""

    passes_at_once = 2

    def __init__(self, checkpoint: Path, device: str, dtype: str) -> None:
        """Waits until the model is loaded. Raises CheckpointError, UnfitModelError and
        ModelProcessError."""
        self._config: ModelConfig = read_config(checkpoint)
        self._arguments = (str(checkpoint), device, dtype)
        self._buffers = [WindowBuffer(os.memfd_create("locore-windows")) for _ in range(2)]
        self._turn = 0
        self._sending = threading.RLock()
        self._answered = threading.Event()
        self._answered.set()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._closed = False
        try:
            _, self._info = self._start()
            MODEL_MEMORY.set_function(self._memory_bytes)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def info(self) -> ModelInfo:
        return self._info

    def score(self, windows: Sequence[Window]) -> list[NDArray[np.float32]]:
        """As Scorer.score. Raises ModelProcessError."""
        with self._sending:
            connection = self._connection or self._start()[0]
            layouts = self._buffers[self._turn].write(windows)
            try:
                connection.send_bytes(encode(Windows(self._turn, layouts)))
            except OSError:
                raise self._dead(connection, "it ended between two passes") from None
            # Not before: the other buffer may belong to the pass under way.
            self._turn = 1 - self._turn
            # Answers come in the order of the passes.
            before, answered = self._answered, threading.Event()
            self._answered = answered
        try:
            before.wait()
            answer = self._hear(connection)
        finally:
            answered.set()
        if isinstance(answer, Logits):
            return [np.frombuffer(row, np.float32) for row in answer.of_windows]
        raise ModelProcessError(answer.why if isinstance(answer, Failed) else f"got {answer}")

    def close(self) -> None:
        """Kills the process. Idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._process is not None:
                self._process.kill()
                self._process.wait()

    def _memory_bytes(self) -> int:
        process = self._process
        return 0 if process is None else resident_memory(process.pid)

    def _start(self) -> tuple[Connection, ModelInfo]:
        ours, theirs = multiprocessing.Pipe()
        descriptors = [theirs.fileno(), *(buffer.descriptor for buffer in self._buffers)]
        command = [sys.executable, "-P", "-m", "service.inference", *self._arguments]
        with self._lock, theirs:
            if self._closed:
                ours.close()
                raise ModelProcessError("the service is shutting down")
            self._process = subprocess.Popen(  # noqa: S603
                [*command, *map(str, descriptors)],
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
                # Prints of libraries are not the service's output.
                stdout=subprocess.DEVNULL,
                # Ctrl-C in a terminal drains the service, which still needs it.
                start_new_session=True,
            )
        self._connection = ours
        match self._hear(ours):
            case Ready(device, dtype, kernel, kernel_note):
                return ours, ModelInfo(self._config, device, dtype, kernel, kernel_note)
            case Unfit(why):
                self._end(ours)
                raise UnfitModelError(why)
            case answer:
                raise self._dead(ours, f"got {answer} for a start")

    def _hear(self, connection: Connection) -> Answer:
        try:
            if connection.poll(STUCK_SECONDS):
                return answer_from(connection.recv_bytes())
            why = f"no answer for {STUCK_SECONDS:g} seconds"
        except (EOFError, OSError):
            why = "it died"
        raise self._dead(connection, why)

    def _dead(self, connection: Connection, why: str) -> ModelProcessError:
        code = self._end(connection)
        if not self._closed:
            log.error("model_process_ended", why=why, exit_code=code)
        return ModelProcessError(f"the model's process: {why}")

    def _end(self, connection: Connection) -> int | None:
        """Of the process at the other end: its exit code, None where it has ended before."""
        with self._sending:
            if self._connection is not connection:
                return None
            self._connection = None
            connection.close()
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return None
        process.kill()
        return process.wait()
