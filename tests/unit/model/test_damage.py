"""A damaged file is read or refused in bounded time, also where the HDF5 library alone would never
end or would end the process."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from model import damage
from model.damage import DamagedFileError, check_ends
from model.descriptor_file import DescriptorFileError, DescriptorReader
from model.formats.format_error import FormatError
from model.global_rows import GlobalRows
from tests.descriptor_files import write_descriptors, write_endless

FLIPS = 40


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(damage, "SECONDS", 0.3)


@pytest.mark.usefixtures("soon")
def test_a_flipped_bit_is_read_or_refused(tmp_path: Path) -> None:
    write_descriptors(tmp_path / "whole.h5", ["a", "b"])
    whole = (tmp_path / "whole.h5").read_bytes()
    written = [at for at in range(len(whole)) if any(whole[max(0, at - 16) : at + 16])]
    heap = whole.index(b"GCOL")
    rng = random.Random(0)
    places = [*rng.choices(written, k=FLIPS), *rng.choices(range(heap, heap + 96), k=FLIPS)]
    for place in places:
        damaged = bytearray(whole)
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
    with pytest.raises(DescriptorFileError, match=r"x\.h5: .*does not end"):
        DescriptorReader(path)
    with pytest.raises(FormatError, match=r"x\.h5: .*does not end"):
        GlobalRows(path)
    assert time.monotonic() - started < 10
    # The next file is read as if nothing had been.
    write_descriptors(tmp_path / "whole.h5", ["a"])
    with DescriptorReader(tmp_path / "whole.h5") as reader:
        assert list(reader.ids) == ["a"]


def test_a_crash_of_the_library_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_descriptors(tmp_path / "x.h5", ["a"])
    check_ends(tmp_path / "x.h5")
    assert damage._process is not None
    os.kill(damage._process.pid, signal.SIGSEGV)
    with pytest.raises(DamagedFileError, match="crashes"):
        check_ends(tmp_path / "x.h5")
    check_ends(tmp_path / "x.h5")
