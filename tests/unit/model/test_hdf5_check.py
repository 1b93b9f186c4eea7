"""A damaged file is read or refused in bounded time, also where the HDF5 library would hang."""

from __future__ import annotations

import os
import random
import resource
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from model import hdf5_check
from model.descriptor_file import DescriptorFileError, DescriptorReader
from model.formats.format_error import FormatError
from model.global_rows import GlobalRows
from model.hdf5_check import DamagedFileError, check_readable
from tests.descriptor_files import write_descriptors, write_endless

FLIPS = 40


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5_check, "SECONDS", 0.3)


@pytest.mark.usefixtures("soon")
def test_a_flipped_bit_is_read_or_refused(tmp_path: Path) -> None:
    write_descriptors(tmp_path / "whole.h5", ["a", "b"])
    content = (tmp_path / "whole.h5").read_bytes()
    written = [at for at in range(len(content)) if any(content[max(0, at - 16) : at + 16])]
    heap = content.index(b"GCOL")
    rng = random.Random(0)
    places = [*rng.choices(written, k=FLIPS), *rng.choices(range(heap, heap + 96), k=FLIPS)]
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << rng.randrange(8)
        (tmp_path / "damaged.h5").write_bytes(damaged)
        with suppress(DescriptorFileError), DescriptorReader(tmp_path / "damaged.h5") as reader:
            for _ in reader:
                pass
        with suppress(DescriptorFileError):
            write_descriptors(tmp_path / "damaged.h5", [])


@pytest.mark.usefixtures("soon")
def test_what_never_ends_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    write_endless(path)
    started = time.monotonic()
    with pytest.raises(DescriptorFileError, match=r"x\.h5: .*does not finish reading it"):
        DescriptorReader(path)
    with pytest.raises(FormatError, match=r"x\.h5: .*does not finish reading it"):
        GlobalRows(path)
    assert time.monotonic() - started < 10
    # The next file is read as if nothing had been.
    write_descriptors(tmp_path / "whole.h5", ["a"])
    with DescriptorReader(tmp_path / "whole.h5") as reader:
        assert list(reader.ids) == ["a"]


def test_a_crash_of_the_library_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    write_endless(path)
    done = threading.Event()

    def crash() -> None:
        while not done.wait(0.3):
            if hdf5_check._checker is not None:
                os.kill(hdf5_check._checker.pid, signal.SIGSEGV)

    write_descriptors(tmp_path / "whole.h5", ["a"])
    check_readable(tmp_path / "whole.h5")
    with ThreadPoolExecutor(1) as pool:
        crashing = pool.submit(crash)
        with pytest.raises(DamagedFileError, match="crashes"):
            check_readable(path)
        done.set()
        crashing.result()
    check_readable(tmp_path / "whole.h5")


def test_a_check_that_was_killed_while_idle_blames_no_file(tmp_path: Path) -> None:
    write_descriptors(tmp_path / "x.h5", ["a"])
    check_readable(tmp_path / "x.h5")
    assert hdf5_check._checker is not None
    os.kill(hdf5_check._checker.pid, signal.SIGKILL)
    check_readable(tmp_path / "x.h5")


def test_an_interrupted_check_says_nothing_of_the_next_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_descriptors(tmp_path / "x.h5", ["a"])
    write_endless(tmp_path / "endless.h5")
    check_readable(tmp_path / "x.h5")
    checker = hdf5_check._checker
    assert checker is not None

    def interrupted(seconds: float) -> bool | None:
        raise KeyboardInterrupt

    monkeypatch.setattr(checker, "_answer", interrupted)
    with pytest.raises(KeyboardInterrupt):
        check_readable(tmp_path / "x.h5")
    monkeypatch.setattr(hdf5_check, "SECONDS", 0.3)
    with pytest.raises(DamagedFileError):
        check_readable(tmp_path / "endless.h5")


def test_many_open_files_are_no_obstacle(tmp_path: Path) -> None:
    """`select` takes no descriptor above 1,023."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2048:
        pytest.skip("the system allows too few open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    write_descriptors(tmp_path / "x.h5", ["a"])
    with ExitStack() as stack:
        for _ in range(1100):
            stack.enter_context(Path(os.devnull).open())
        if hdf5_check._checker is not None:
            hdf5_check._checker.end()
        check_readable(tmp_path / "x.h5")
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
