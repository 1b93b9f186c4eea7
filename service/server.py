"""uvicorn with a drain: after SIGTERM it refuses new work and finishes what runs."""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import resource
import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import FrameType

import structlog
import uvicorn
from fastapi import FastAPI

from service.machine.cores import usable_cores
from service.request.connections import BoundedConnection, Patience
from service.settings import Settings
from service.state import ServiceState

log = structlog.get_logger(__name__)

_OTHER_DESCRIPTORS = 200
"""Files, the store's connections, and what the model's libraries hold open."""

_SWITCH_SECONDS = 0.0005

ACCEPTED_AT_ONCE = 16
"""Connections that are accepted in one round of the event loop."""


class DrainingServer(uvicorn.Server):
    """The first signal drains: the socket stays open so that clients hear `shutting_down` and
    load balancers see the service not ready. It ends when nothing runs any more, when
    `drain_seconds` are over, or at a second signal."""

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        max_connections = connections_limit(settings.max_connections)
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                log_config=None,
                http=partial(  # type: ignore[arg-type]
                    BoundedConnection,
                    max_connections=max_connections,
                    waiting={},
                    # A request that waits has a connection. Most are for those that are refused.
                    max_requests=max_connections // 4,
                    patience=Patience(),
                    service=lambda: app.state.service,
                ),
                timeout_keep_alive=settings.keep_alive_seconds,
                access_log=False,
                lifespan="off",
                timeout_graceful_shutdown=5,
            )
        )
        self._app = app
        self._drain_seconds = settings.drain_seconds
        self._drain_until: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        service: ServiceState | None = getattr(self._app.state, "service", None)
        if service is None:
            super().handle_exit(sig, frame)
            return
        # Not kept for uvicorn to raise again: a drained service ends with exit code 0.
        patience = self._drain_seconds if self._drain_until is None else 0.0
        service.draining = True
        self._drain_until = time.monotonic() + patience

    async def on_tick(self, counter: int) -> bool:
        """uvicorn asks this ten times a second."""
        if self._drain_until is not None and not self.should_exit:
            running = len(self.server_state.tasks)
            if not running or time.monotonic() > self._drain_until:
                log.info("drained", requests_left=running)
                # Whoever still waits is told so now, not cut off a moment later.
                service: ServiceState = self._app.state.service
                service.extraction.close()
                await service.batcher.close()
                self.should_exit = True
        return await super().on_tick(counter)

    def started_state(self) -> ServiceState | None:
        """For another thread, which waits here until requests are taken; None where the server
        ends before."""
        while not self.started:
            if self.should_exit:
                return None
            time.sleep(0.05)
        state: ServiceState = self._app.state.service
        return state

    def run_to_end(self, listening: socket.socket) -> None:
        """Raises what a part of the app raises that cannot start, which uvicorn's own handling of
        the lifespan would log as a trace and swallow."""
        with asyncio.Runner(loop_factory=self.config.get_loop_factory()) as runner:
            try:
                runner.run(self._start_and_serve(listening))
            except asyncio.CancelledError:
                log.info("stopped_while_starting")

    async def _start_and_serve(self, listening: socket.socket) -> None:
        # uvicorn takes the signals over when it serves. Until then one must still take down
        # what has been started, the embedded store above all.
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        # asyncio itself would count the machine's cores.
        loop.set_default_executor(ThreadPoolExecutor(usable_cores() + 4, "threads"))
        assert task is not None  # noqa: S101
        loop.add_signal_handler(signal.SIGTERM, task.cancel)
        # A terminal that is closed says so by SIGHUP, which uvicorn does not take over; `nohup`
        # has it ignored.
        hangs_up = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
        if hangs_up:
            loop.add_signal_handler(signal.SIGHUP, task.cancel)
        async with self._app.router.lifespan_context(self._app):
            loop.remove_signal_handler(signal.SIGTERM)
            _spare_the_event_loop()
            if hangs_up:
                loop.add_signal_handler(signal.SIGHUP, self.handle_exit, signal.SIGHUP, None)
            await self.serve(sockets=accepting(listening))


def _spare_the_event_loop() -> None:
    """Called once all parts of the service are there."""
    # They live as long as the service. A full collection that goes through them, which are most of
    # all objects, takes a quarter of a second.
    gc.collect()
    gc.freeze()
    # A forward pass asks for the interpreter lock hundreds of times, and waits so long each time
    # while the event loop is busy.
    sys.setswitchinterval(_SWITCH_SECONDS)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; `::` takes IPv4 too, where the system has both. Raises OSError: a port in
    use is known before anything is started."""
    try:
        families = {info[0] for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    except UnicodeError as error:
        raise OSError(0, f"no host name: {error}") from None
    family = socket.AF_INET if socket.AF_INET in families else socket.AF_INET6
    both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
    return socket.create_server((host, port), family=family, backlog=2048, dualstack_ipv6=both)


def accepting(listening: socket.socket) -> list[socket.socket]:
    """The socket and duplicates of it. In one round of its event loop libuv accepts one connection
    for each of them; in an overload, when rounds are long, connections would pile up and time out
    before they are accepted."""
    return [listening, *(listening.dup() for _ in range(ACCEPTED_AT_ONCE - 1))]


def own_url(listening: socket.socket) -> str:
    """Where this process reaches what it listens on: any address means the loopback one."""
    host, port = listening.getsockname()[:2]
    if ipaddress.ip_address(host.partition("%")[0]).is_unspecified:
        only_ipv6 = listening.family == socket.AF_INET6 and listening.getsockopt(
            socket.IPPROTO_IPV6, socket.IPV6_V6ONLY
        )
        host = "::1" if only_ipv6 else "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def connections_limit(limit: int) -> int:
    """As many as there are descriptors for, of which other things need some: the limit of the
    process is raised as far as it may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = limit + _OTHER_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return limit
    possible = max(1, soft - _OTHER_DESCRIPTORS)
    log.warning("fewer_connections", most=possible, why=f"the process may open {soft} files")
    return possible
