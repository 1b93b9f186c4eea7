"""The embedded store: its directory, its socket, and what a service that was killed left behind."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import stat
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import redis.asyncio as redis

from service.gallery.embedded import EmbeddedValkey
from service.gallery.store_connection import connect_store
from tests.factories import SIZES

LONG = "a long name " * 8

_START_AND_WAIT = """
import asyncio, sys
from pathlib import Path
from service.gallery.embedded import EmbeddedValkey
async def work():
    valkey = EmbeddedValkey(Path(sys.argv[1]))
    await valkey.start()
    print(valkey.url, flush=True)
    await asyncio.sleep(60)
asyncio.run(work())
"""


async def process_id(url: str) -> int:
    async with redis.Redis.from_url(url) as client:
        return int((await client.info("server"))["process_id"])


def is_there(pid: int) -> bool:
    """False of a zombie too, which nobody may have buried yet."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def socket_of(url: str) -> Path:
    return Path(url.removeprefix("unix://"))


async def until(condition: Callable[[], bool]) -> None:
    while True:
        if condition():
            return
        await asyncio.sleep(0.02)


async def left_behind(folder: Path) -> tuple[str, int]:
    """The URL and the process of a store with an image, whose service was killed."""
    service = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _START_AND_WAIT, str(folder)), stdout=asyncio.subprocess.PIPE
    )
    assert service.stdout is not None
    url = (await service.stdout.readline()).decode().strip()
    store = connect_store(url)
    await store.put("x", {"a": b"a record"}, SIZES, None)
    await store.close()
    pid = await process_id(url)
    service.kill()
    await service.wait()
    assert is_there(pid)
    return url, pid


def with_store(folder: Path, work: Callable[[EmbeddedValkey], Awaitable[None]]) -> None:
    async def run() -> None:
        valkey = EmbeddedValkey(folder)
        try:
            async with asyncio.timeout(60):
                await valkey.start()
                await work(valkey)
        finally:
            await valkey.stop()

    asyncio.run(run())


@pytest.mark.parametrize("name", ["x", LONG])
@pytest.mark.parametrize("lost", [False, True])
def test_what_a_killed_service_left_is_ended_first(tmp_path: Path, name: str, lost: bool) -> None:
    """Also where its socket was removed: two stores must not write to one directory."""
    folder = tmp_path / name

    async def run() -> None:
        url, pid = await left_behind(folder)
        if lost:
            socket_of(url).unlink()
        valkey = EmbeddedValkey(folder)
        await valkey.start()
        assert not is_there(pid)
        store = connect_store(valkey.url)
        assert (await store.fetch("x", ["a"])).records == [b"a record"]
        await store.close()
        await valkey.stop()

    asyncio.run(run())


def test_a_process_that_has_the_number_of_a_dead_store_is_left_alone(tmp_path: Path) -> None:
    async def run() -> None:
        _, pid = await left_behind(tmp_path)
        os.kill(pid, signal.SIGKILL)
        await until(lambda: not is_there(pid))
        other = await asyncio.create_subprocess_exec("sleep", "60")
        (tmp_path / "valkey" / "valkey.pid").write_text(f"{other.pid}\n")
        valkey = EmbeddedValkey(tmp_path)
        await valkey.start()
        await valkey.stop()
        assert other.returncode is None
        other.kill()
        await other.wait()

    asyncio.run(run())


def test_a_store_whose_socket_was_removed_is_found_again(tmp_path: Path) -> None:
    async def work(valkey: EmbeddedValkey) -> None:
        first = await process_id(valkey.url)
        store = connect_store(valkey.url)
        await store.put("x", {"a": b"a record"}, SIZES, None)
        await store.close()
        socket = socket_of(valkey.url)
        socket.unlink()
        await until(socket.exists)
        store = connect_store(valkey.url)
        assert (await store.fetch("x", ["a"])).records == [b"a record"]
        await store.close()
        assert not is_there(first)

    with_store(tmp_path, work)


def test_a_socket_in_the_shared_folder_is_in_a_directory_of_our_own(tmp_path: Path) -> None:
    folder = tmp_path / LONG
    places = []

    async def work(valkey: EmbeddedValkey) -> None:
        socket = socket_of(valkey.url)
        assert tmp_path not in socket.parents
        assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
        places.append(socket.parent)
        store = connect_store(valkey.url)
        await store.ping()
        await store.close()

    for _ in range(2):
        with_store(folder, work)
        assert not places[-1].exists()
    # Another name each time: it cannot be taken before.
    assert places[0] != places[1]


def test_a_directory_that_somebody_else_made_meanwhile_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not below `tmp_path`: in a parallel run its name is too long for a socket.
    shared = tempfile.mkdtemp()
    monkeypatch.setattr(tempfile, "tempdir", shared)

    async def work(valkey: EmbeddedValkey) -> None:
        short = socket_of(valkey.url).parent
        pid = await process_id(valkey.url)
        theirs = Path(shared) / "theirs"
        theirs.mkdir()
        (short / "valkey.sock").unlink()
        short.rmdir()
        short.symlink_to(theirs)
        await until(lambda: not is_there(pid))
        await asyncio.sleep(1)
        assert list(theirs.iterdir()) == []
        short.unlink()
        await until(short.is_dir)

    with_store(tmp_path / LONG, work)
    shutil.rmtree(shared)
