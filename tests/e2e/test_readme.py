"""The README's example, pasted, gives what it prints."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.service import LOCORE, free_port

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
EXAMPLE = README.split("## An example")[1].split("\n## ")[0]
BLOCKS = re.findall(r"```sh\n(.*?)```\n(?:```text\n(.*?)```)?", EXAMPLE, re.DOTALL)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str, str]]:
    """(folder, url, what the service printed): the service of `make run` on another port."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / ".venv").symlink_to(Path(LOCORE).parents[1])
    port = free_port()
    environment = {n: v for n, v in os.environ.items() if not n.startswith("LOCORE_")}
    with (folder / "printed.txt").open("wb") as output:
        process = subprocess.Popen(
            [LOCORE, "serve", "--sample", "--port", str(port)],
            cwd=folder,
            # Threads of its own would only wait for those of other tests.
            env=environment | {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"},
            stdout=output,
            stderr=subprocess.DEVNULL,
        )
    try:
        while "Paste this" not in (folder / "printed.txt").read_text():
            assert process.poll() is None
            time.sleep(0.1)
        yield folder, f"http://127.0.0.1:{port}", (folder / "printed.txt").read_text()
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def paste(command: str, folder: Path, url: str) -> str:
    environment = os.environ | {"LOCORE_URL": url, "COLUMNS": "120"}
    process = subprocess.run(
        ["bash", "-c", command.replace("http://127.0.0.1:8000", url)],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=110,
        check=True,
    )
    return process.stdout


def words(text: str) -> list[str]:
    """Without numbers that another machine may round otherwise."""
    return re.sub(r"\d+\.\d+", "NUMBER", text).split()


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"\d+\.\d+", text)]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("place", range(len(BLOCKS)))
def test_the_example_gives_what_it_prints(started: tuple[Path, str, str], place: int) -> None:
    folder, url, _ = started
    command, expected = BLOCKS[place]
    output = paste(command, folder, url)
    assert output
    if expected:
        assert words(output) == words(expected)
        assert numbers(output) == pytest.approx(numbers(expected), abs=0.011)


def test_the_printed_request_can_be_pasted(started: tuple[Path, str, str]) -> None:
    folder, url, printed = started
    (command,) = re.findall(r"^ *(curl .*)$", printed, re.MULTILINE)
    answer = httpx.Response(200, text=paste(command, folder, url)).json()
    assert len(answer["results"]) == 10
    assert answer["usage"]["images"] == 100
