"""uvicorn, with a drain: after SIGTERM new work is refused while what runs may finish."""

from __future__ import annotations

import time
from types import FrameType

import structlog
import uvicorn
from fastapi import FastAPI

from service.settings import Settings
from service.state import ServiceState

log = structlog.get_logger(__name__)


class DrainingServer(uvicorn.Server):
    """The first signal drains: the socket stays open so that clients hear `shutting_down` and
    load balancers see the service not ready. It ends when nothing runs any more, when
    `drain_seconds` are over, or at a second signal."""

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=5,
            )
        )
        self._app = app
        self._drain_seconds = settings.drain_seconds
        self._drain_until: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        service: ServiceState | None = getattr(self._app.state, "service", None)
        if service is None or self._drain_until is not None:
            super().handle_exit(sig, frame)
            return
        self._captured_signals.append(sig)
        service.draining = True
        self._drain_until = time.monotonic() + self._drain_seconds

    async def on_tick(self, counter: int) -> bool:
        """uvicorn asks this ten times a second."""
        if self._drain_until is not None and not self.should_exit:
            running = len(self.server_state.tasks)
            if not running or time.monotonic() > self._drain_until:
                log.info("drained", requests_left=running)
                self.should_exit = True
        return await super().on_tick(counter)
