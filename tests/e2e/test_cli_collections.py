"""`locore collections`, on a real service."""

from __future__ import annotations

import io
import json
import pty
import subprocess
import sys
import uuid
from collections.abc import Callable
from os import close, read, write

import pytest

from locore_client import Client, NotFoundError
from model.descriptors import ImageDescriptors
from tests.e2e.command import error_of, run_here, stdout_of
from tests.e2e.service import LOCORE, RunningService, free_port
from tests.factories import GLOBAL_DIM, LOCAL_DIM

Run = Callable[..., str]


@pytest.fixture
def name(service: RunningService, gallery: dict[str, ImageDescriptors]) -> str:
    """A new collection of three images."""
    made = f"cli-{uuid.uuid4().hex}"
    few = {image_id: gallery[image_id] for image_id in ("image-001", "image-002", "image-003")}
    assert service.register(few, collection=made).is_success
    return made


@pytest.fixture
def stdout(service: RunningService, capsys: pytest.CaptureFixture[str]) -> Run:
    return lambda *arguments: stdout_of(capsys, "collections", *arguments, "--url", service.url)


@pytest.fixture
def fault(service: RunningService, capsys: pytest.CaptureFixture[str]) -> Run:
    return lambda *arguments: error_of(capsys, "collections", *arguments, "--url", service.url)


def test_collections_are_a_table_or_json(
    service: RunningService, name: str, stdout: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    stdout("alias", f"{name}-alias", name)
    _, table, _ = run_here(capsys, "collections", "list", "--url", service.url)
    (row,) = [line for line in table.splitlines() if name in line]
    size = Client(service.url).collection(name).bytes
    cells = [cell.strip() for cell in row.split("│")][1:-1]
    assert cells[:4] == [name, "3", str(LOCAL_DIM), str(GLOBAL_DIM)]
    assert cells[4:] == [f"{size} bytes", f"{name}-alias"]
    (one,) = [one for one in json.loads(stdout("list", "--json")) if one["name"] == name]
    assert one == {
        "name": name,
        "count": 3,
        "sizes": {"local": LOCAL_DIM, "global": GLOBAL_DIM},
        "bytes": size,
        "aliases": [f"{name}-alias"],
    }


def test_an_alias_is_moved_and_forgotten(name: str, stdout: Run, fault: Run) -> None:
    alias = f"{name}-alias"
    assert stdout("alias", alias, name) == f"{alias}: stands for {name}"
    assert stdout("alias", alias, "default").endswith(f"default, before for {name}")
    moved = json.loads(stdout("alias", alias, name, "--json"))
    assert moved == {"alias": alias, "collection": name, "previous": "default"}
    assert f"{alias} │ {name}" in stdout("aliases")
    assert {"alias": alias, "collection": name} in json.loads(stdout("aliases", "--json"))
    assert alias in fault("drop", name, "--yes")
    assert stdout("unalias", alias) == f"{alias}: deleted"
    assert alias not in stdout("aliases")
    assert stdout("drop", name, "--yes") == f"{name}: dropped"


def test_an_answer_is_asked_for(
    service: RunningService, name: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, fault: Run,
) -> None:  # fmt: skip
    def answered(text: str, command: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        return run_here(capsys, "collections", command, name, "--url", service.url)

    for command in ("empty", "drop"):
        code, out, err = answered("n\n", command)
        assert (code, out) == (2, "")
        assert f"{command.title()} {name} with 3 images? [y/N]" in err
        assert err.endswith(f"locore: {name}: not changed\n")
        code, out, err = answered("", command)
        assert (code, out) == (2, "")
        assert err.endswith("there is no terminal to ask on; use --yes\n")
    with Client(service.url) as client:
        assert client.collection(name).count == 3
        assert answered("y\n", "empty")[:2] == (0, f"{name}: 3 images deleted\n")
        assert client.collection(name).count == 0
        assert answered("y\n", "drop")[:2] == (0, f"{name}: dropped\n")
        with pytest.raises(NotFoundError):
            client.collection(name)


def test_an_end_of_the_input_drops_nothing(service: RunningService, name: str) -> None:
    """Ctrl-D, at the question."""
    ours, theirs = pty.openpty()
    command = [LOCORE, "collections", "drop", name, "--url", service.url]
    asking = subprocess.Popen(
        command, stdin=theirs, stderr=theirs, stdout=theirs, start_new_session=True
    )
    close(theirs)
    output = b""
    while b"[y/N]" not in output:
        output += read(ours, 1000)
    write(ours, b"\x04")
    assert asking.wait(30) == 2
    close(ours)
    with Client(service.url) as client:
        assert client.collection(name).count == 3


def test_without_a_question_as_json(name: str, stdout: Run) -> None:
    emptied = json.loads(stdout("empty", name, "--yes", "--json"))
    assert emptied == {"collection": name, "deleted": 3}


def test_faults_are_one_line(name: str, fault: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nobody" in fault("drop", "nobody")
    assert "nobody" in fault("drop", "nobody", "--yes")
    assert "nobody" in fault("empty", "nobody")
    assert "nobody" in fault("alias", "a", "nobody")
    assert "nobody" in fault("unalias", "nobody")
    assert name in fault("alias", name, "default")
    assert "alias: String should match" in fault("alias", "a b", "default")
    away = f"http://127.0.0.1:{free_port()}"
    assert away in error_of(capsys, "collections", "list", "--url", away)
