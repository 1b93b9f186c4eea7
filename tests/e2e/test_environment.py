"""What the place where it runs does to it: proxies, a closed terminal, a store that refuses."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import subprocess
import termios
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from model.descriptors import ImageDescriptors
from tests.descriptor_files import write_descriptors
from tests.e2e.command import error_of, output_of
from tests.e2e.service import LOCORE, RunningService, code_of, free_port, running
from tests.e2e.valkey import plain_valkey

Images = dict[str, ImageDescriptors]


@pytest.fixture(scope="module")
def descriptor_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("descriptors") / "shop.h5"
    write_descriptors(path, ["a-1", "a-2", "b-1"])
    return path


def test_a_port_that_is_none_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCORE_PORT", "many")
    assert "--port / LOCORE_PORT" in error_of(capsys, "serve")


@pytest.mark.parametrize(
    "proxies",
    [
        {"HTTP_PROXY": "http://127.0.0.1:9"},
        {"ALL_PROXY": "socks5://127.0.0.1:9"},
        {"http_proxy": "no address", "NO_PROXY": "localhost,[::1],127.0.0.0/8"},
    ],
)
def test_a_service_on_this_machine_is_asked_straight(
    service: RunningService,
    descriptor_file: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    proxies: dict[str, str],
) -> None:
    for name, value in proxies.items():
        monkeypatch.setenv(name, value)
    target = ("--url", service.url, "--collection", "behind-a-proxy")
    assert "3 images" in output_of(capsys, "load", descriptor_file, *target, "--replace")


@contextmanager
def in_a_terminal(
    command: list[str], ignoring: bool
) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """The terminal's other end, and a process whose terminal it is, which may ignore SIGHUP as
    under `nohup`."""
    ours, its = pty.openpty()

    def prepare() -> None:
        fcntl.ioctl(its, termios.TIOCSCTTY, 0)
        # What runs the tests may itself be under nohup.
        signal.signal(signal.SIGHUP, signal.SIG_IGN if ignoring else signal.SIG_DFL)

    process = subprocess.Popen(
        command, stdin=its, stdout=its, stderr=its, start_new_session=True, preexec_fn=prepare
    )
    os.close(its)
    try:
        yield ours, process
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.parametrize("ignoring", [False, True], ids=["plain", "nohup"])
def test_a_closed_terminal_ends_the_service_and_its_store(
    checkpoint: Path, tmp_path: Path, ignoring: bool
) -> None:
    flags = {"checkpoint": checkpoint, "data-dir": tmp_path, "port": free_port(), "device": "cpu"}
    command = [LOCORE, "serve", *(f"--{name}={value}" for name, value in flags.items())]
    pid_file = tmp_path / "valkey" / "valkey.pid"
    with in_a_terminal(command, ignoring) as (ours, process):
        output = b""
        while b"ready" not in output:
            output += os.read(ours, 4096)
        assert pid_file.exists()
        os.close(ours)
        if ignoring:
            time.sleep(1)
            assert process.poll() is None
        else:
            assert process.wait(30) == 0
            assert not list(tmp_path.rglob("valkey.sock"))
            assert not pid_file.exists()


def test_a_store_that_refuses_is_unavailable_and_not_ready(
    checkpoint: Path,
    tmp_path: Path,
    gallery: Images,
    query: ImageDescriptors,
    descriptor_file: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    port = free_port()
    with plain_valkey(port, tmp_path), redis.Redis(port=port) as raw:
        raw.execute_command("ACL", "SETUSER", "shop", "on", ">hunter2", "~*", "+@all")
        url = f"redis://shop:hunter2@127.0.0.1:{port}"
        with running(checkpoint, tmp_path / "data", redis_url=url) as service:
            assert service.register({"a": gallery["image-001"]}).is_success
            raw.execute_command("ACL", "SETUSER", "shop", "-eval", "-mget", "-getrange")
            for answer in (
                service.rerank(query, ["a"]),
                service.register({"a": gallery["image-001"]}),
                service.http.get("/gallery"),
                service.http.delete("/gallery/a"),
                service.http.get("/health/ready"),
            ):
                assert code_of(answer) == (503, "store_unavailable")
                assert "shop" not in answer.text
            assert service.metric("locore_store_up") == 0
            assert "no permissions to run" in service.log
            line = error_of(capsys, "load", descriptor_file, "--redis", url)
            assert "refuses commands: User shop has no permissions" in line
            assert "hunter2" not in line + service.log
            raw.execute_command("ACL", "SETUSER", "shop", "+@all")
            assert service.http.get("/health/ready").is_success
            assert service.metric("locore_store_up") == 1


def test_many_requests_share_few_connections(
    checkpoint: Path, tmp_path: Path, gallery: Images, query: ImageDescriptors
) -> None:
    port = free_port()
    with plain_valkey(port, tmp_path):
        url = f"redis://127.0.0.1:{port}?max_connections=2"
        with running(checkpoint, tmp_path / "data", redis_url=url, cache_bytes=0) as service:
            images = dict(list(gallery.items())[:50])
            assert service.register(images).is_success
            with ThreadPoolExecutor(12) as pool:
                asked = [pool.submit(service.rerank, query, list(images)) for _ in range(36)]
            assert {done.result().status_code for done in asked} == {200}
            assert service.metric("locore_store_up") == 1
            assert "store_away" not in service.log
