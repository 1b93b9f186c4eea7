"""The model in a process of its own, for use from two threads of the service.

A forward pass asks for the interpreter lock hundreds of times. In the service's own process each
of them waits for the event loop's Python, and the event loop for the pass. While the process
computes one pass, the windows of the next are written, so that it need not wait for them."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray

from model.closing import Closing
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
from service.machine.child_process import ChildProcess, ClosedError, NoAnswerError, answer_of
from service.machine.memory import resident_memory
from service.watch.metrics import MODEL_MEMORY

log = structlog.get_logger(__name__)

STUCK_SECONDS = 120.0
"""A start or a forward pass that takes longer will not come back."""


class UnfitModelError(ValueError):
    """A checkpoint or a device that cannot be used here; the message is one line."""


class ModelProcessError(RuntimeError):
    """The model's process ended, or its pass failed."""


class ModelProcess(Closing):
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
        descriptors = [buffer.descriptor for buffer in self._buffers]
        self._child = ChildProcess("service.inference", descriptors)
        self._info: ModelInfo
        try:
            self._start()
            MODEL_MEMORY.set_function(self._memory_bytes)
        except BaseException:
            self.close()
            raise

    @property
    def info(self) -> ModelInfo:
        return self._info

    def score(self, windows: Sequence[Window]) -> list[NDArray[np.float32]]:
        """As Scorer.score. Raises ModelProcessError."""
        with self._sending:
            if self._child.closed:
                raise _shutting_down()
            connection = self._child.connection or self._start()
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
        if not self._child.closed:
            self._child.close()
            # Who sends now is told by the end of the connection, and does not keep us waiting.
            with self._sending:
                for buffer in self._buffers:
                    buffer.close()

    def _memory_bytes(self) -> int:
        pid = self._child.pid
        return 0 if pid is None else resident_memory(pid)

    def _start(self) -> Connection:
        try:
            connection = self._child.start(*self._arguments)
        except ClosedError:
            raise _shutting_down() from None
        match self._hear(connection):
            case Ready(device, dtype, kernel, kernel_note):
                self._info = ModelInfo(self._config, device, dtype, kernel, kernel_note)
                return connection
            case Unfit(why):
                self._end(connection)
                raise UnfitModelError(why)
            case answer:
                raise self._dead(connection, f"got {answer} for a start")

    def _hear(self, connection: Connection) -> Answer:
        try:
            return answer_from(answer_of(connection, STUCK_SECONDS))
        except NoAnswerError as error:
            raise self._dead(connection, str(error)) from None

    def _dead(self, connection: Connection, why: str) -> ModelProcessError:
        code = self._end(connection)
        if not self._child.closed:
            log.error("model_process_ended", why=why, exit_code=code)
        return ModelProcessError(f"the model's process: {why}")

    def _end(self, connection: Connection) -> int | None:
        # Nobody may be sending on a connection that is closed.
        with self._sending:
            return self._child.end(connection)


def _shutting_down() -> ModelProcessError:
    return ModelProcessError("the service is shutting down")
