"""The extractor's process: begun by a picture, gone with the service, begun again after it died."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from model.config import ExtractorId
from service.api.errors import NoExtractorError, TooLargeError, UnavailableError, UnprocessableError
from service.picture_extraction.extractor_process import ExtractorProcess
from tests import processes
from tests.pictures import EXTRACTOR, blank, photograph
from tests.processes import gone

PICTURE = photograph("astronaut")


def children() -> list[int]:
    """Extractors that this process has started and that still run."""
    return processes.children(os.getpid(), processes.CHILD)


@pytest.fixture(scope="module")
def process() -> Iterator[ExtractorProcess]:
    one = ExtractorProcess(EXTRACTOR, None, 9)
    assert children() == []
    assert one.extractor is None
    yield one
    one.close()


def test_pictures_are_described_or_refused(process: ExtractorProcess) -> None:
    first = process.extract(PICTURE)
    assert first.features.descriptors.shape == (9, 128)
    assert first.size == (160, 160)
    assert process.extractor is not None
    assert process.extractor.name == EXTRACTOR
    with pytest.raises(UnprocessableError) as refusal:
        process.extract(b"Dear Sir or Madam")
    assert refusal.value.code == "not_an_image"
    with pytest.raises(TooLargeError):
        process.extract(blank((70_000, 1), "L"))
    np.testing.assert_array_equal(process.extract(PICTURE).features.global_, first.features.global_)
    assert len(children()) == 1


def test_it_gives_way(process: ExtractorProcess) -> None:
    process.start()
    (child,) = children()
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert os.getpriority(os.PRIO_PROCESS, child) == min(own + 10, 19)
    assert Path(f"/proc/{child}/oom_score_adj").read_text() == "1000\n"


def test_what_asks_a_group_of_processes_to_end_leaves_it(process: ExtractorProcess) -> None:
    """So that what runs while the service drains is still answered."""
    process.start()
    (child,) = children()
    os.kill(child, signal.SIGTERM)
    os.kill(child, signal.SIGINT)
    process.extract(PICTURE)
    assert children() == [child]


def test_one_that_died_idle_is_not_missed(process: ExtractorProcess) -> None:
    process.start()
    (child,) = children()
    os.kill(child, signal.SIGKILL)
    assert gone(child)
    process.extract(PICTURE)
    assert children() != [child]


def test_one_that_dies_of_a_picture_takes_that_one_along(process: ExtractorProcess) -> None:
    process.start()
    (child,) = children()
    os.kill(child, signal.SIGSTOP)
    threading.Timer(0.3, os.kill, (child, signal.SIGKILL)).start()
    with pytest.raises(UnavailableError) as refusal:
        process.extract(PICTURE)
    assert refusal.value.code == "extractor_unavailable"
    process.extract(PICTURE)
    assert len(children()) == 1


def test_it_is_closed_whatever_it_does() -> None:
    process = ExtractorProcess(EXTRACTOR, None, 9)
    process.start()
    (child,) = set(children()) - {0} - set(_others(process))
    os.kill(child, signal.SIGSTOP)
    threading.Timer(0.3, process.close).start()
    with pytest.raises(UnavailableError) as refusal:
        process.extract(PICTURE)
    assert refusal.value.code == "shutting_down"
    assert gone(child)
    with pytest.raises(UnavailableError, match="shutting down"):
        process.start()


def _others(process: ExtractorProcess) -> list[int]:
    assert process._child.pid is not None
    return [child for child in children() if child != process._child.pid]


SERVICE = f"""
import os, signal
from service.picture_extraction.extractor_process import ExtractorProcess
process = ExtractorProcess({EXTRACTOR!r}, None, 9)
process.start()
print(process._child.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_it_does_not_outlive_the_service() -> None:
    killed = subprocess.run([sys.executable, "-c", SERVICE], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert gone(int(killed.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    ("name", "checkpoints", "why"),
    [
        (None, None, "LOCORE_EXTRACTOR is none"),
        ("made-up", None, "no extractor 'made-up'"),
        ("hf:no/such/folder", None, "no/such/folder"),
        (EXTRACTOR, ExtractorId(name=EXTRACTOR, version="0"), "reads descriptors of version 0"),
    ],
)
def test_why_there_is_no_extractor(
    name: str | None, checkpoints: ExtractorId | None, why: str
) -> None:
    before = children()
    process = ExtractorProcess(name, checkpoints, 9)
    for _ in range(2):
        with pytest.raises(NoExtractorError, match=why):
            process.extract(PICTURE)
    assert children() == before
