"""`locore serve --images`: a collection becomes what folders have, again and again."""

from __future__ import annotations

import base64
import re
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from model.config import ExtractorId
from model.extraction.registry import load_extractor
from model.image_ids import image_id
from tests.e2e.command import error_of
from tests.e2e.service import LOCORE, RunningService, ids_of, running
from tests.factories import save_tiny, tiny_config
from tests.own_folders import write_picture
from tests.pictures import EXTRACTOR
from tests.processes import children, gone

COLLECTION = "own"
PICTURES = 96
"""More than are registered at a time."""

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose extractor is the packaged one."""
    extractor = ExtractorId(name=EXTRACTOR, version=load_extractor(EXTRACTOR).version)
    return save_tiny(tmp_path_factory.mktemp("model"), tiny_config(extractor=extractor))


@contextmanager
def serving(
    checkpoint: Path, data: Path, *folders: Path, **settings: Any
) -> Iterator[RunningService]:
    images = [part for folder in folders for part in ("--images", str(folder))]
    command = (LOCORE, "serve", *images, "--collection", COLLECTION)
    with running(checkpoint, data, command=command, **settings) as service:
        yield service


def done(service: RunningService) -> str:
    """What it said, once all is done."""
    until = time.monotonic() + 90
    while time.monotonic() < until:
        if (
            "has the pictures" in service.log
            or "Not all pictures are in the collection" in service.log
        ):
            return service.log
        time.sleep(0.1)
    raise AssertionError(service.log)


def counts(message: str) -> tuple[int, ...]:
    """Described, taken from the file, removed, left out."""
    match = re.search(r": (\d+) described, (\d+) from \S+, (\d+) removed, (\d+) left out", message)
    assert match, message
    return tuple(map(int, match.groups()))


def ids(service: RunningService) -> set[str]:
    return set(service.http.get(f"/gallery?collection={COLLECTION}").json()["ids"])


def stored(service: RunningService, image: str) -> dict[str, Any]:
    path = f"/gallery/{image}?collection={COLLECTION}&include=descriptors"
    answer: dict[str, Any] = service.http.get(path).json()
    return answer


@pytest.mark.slow
def test_a_collection_follows_its_folder(tiny: Path, tmp_path: Path) -> None:
    folder, data = tmp_path / "photos", tmp_path / "data"
    names = ["cats/1.png", "cats/2.png", "Äpfel/süß & rot.png", "loose.png", "tall/er/3.png"]
    for seed, name in enumerate(names):
        write_picture(folder / name, seed)
    (folder / "cats" / "letter.jpg").write_text("Dear Sir or Madam")
    with serving(tiny, data, folder) as service:
        output = done(service)
        assert counts(output) == (5, 0, 0, 1)
        assert f"can be searched meanwhile: {service.url}/#collection={COLLECTION}" in output
        assert f"left out: {folder}/cats/letter.jpg: not a readable image" in output
        assert ids(service) == {image_id(Path(name)) for name in names}
        labels = {name: stored(service, image_id(Path(name)))["metadata"] for name in names}
        assert labels == {
            "cats/1.png": {"label": "cats"},
            "cats/2.png": {"label": "cats"},
            "Äpfel/süß & rot.png": {"label": "Äpfel"},
            "loose.png": None,
            "tall/er/3.png": {"label": "er"},
        }
        path = f"/page/thumbnail?collection={COLLECTION}&id=cats/1.png"
        assert service.http.get(path).content[8:12] == b"WEBP"
        query = {"image": {"data": base64.b64encode((folder / "cats/2.png").read_bytes()).decode()}}
        asked = {
            "collection": COLLECTION,
            "query": query,
            "gallery_ids": sorted(ids(service)),
            "timeout_ms": 60_000,
        }
        assert ids_of(service.http.post("/rerank", json=asked))
        first = stored(service, "cats/1.png"), stored(service, "cats/2.png")
        # Somebody else's, which is none of the folder's business.
        other = {"id": "other", "descriptors": [[1.0] * 128], "global": [1.0] * 512}
        body = {"collection": COLLECTION, "images": [other]}
        assert service.http.post("/gallery", json=body).is_success

    # The same content under the same name, whatever its time, stays; another content does not.
    write_picture(folder / "cats/2.png", 77)
    (folder / "loose.png").unlink()
    write_picture(folder / "dogs/1.png", 8)
    with serving(tiny, data, folder) as service:
        assert counts(done(service)) == (2, 0, 1, 1)
        gone = {"loose.png"}
        came = {"dogs/1.png", "other"}
        assert ids(service) == {image_id(Path(name)) for name in names} - gone | came
        assert stored(service, "cats/1.png") == first[0]
        assert stored(service, "cats/2.png")["arrays"] != first[1]["arrays"]

    # A new store: nothing is described again.
    shutil.rmtree(data / "valkey")
    with serving(tiny, data, folder) as service:
        assert counts(done(service)) == (0, 5, 0, 1)
        assert ids(service) == {image_id(Path(name)) for name in names} - gone | {"dogs/1.png"}
        assert stored(service, "cats/1.png") == first[0]
        assert service.http.get(path).content[8:12] == b"WEBP"


def test_two_folders_are_one_collection_and_an_empty_one_removes_nothing(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cats, dogs, data = tmp_path / "cats", tmp_path / "dogs", tmp_path / "data"
    write_picture(cats / "1.png", 1)
    write_picture(dogs / "2.png", 2)
    with serving(tiny, data, cats, dogs, thumbnail_bytes=0) as service:
        assert counts(done(service)) == (2, 0, 0, 0)
        assert ids(service) == {"1.png", "2.png"}
    # As where a disk is not there.
    (dogs / "2.png").unlink()
    command = ("serve", "--images", cats, "--images", dogs, "--checkpoint", tiny)
    assert "no readable picture in" in error_of(capsys, *command, "--data-dir", data)
    with serving(tiny, data, cats) as service:
        assert counts(done(service)) == (0, 0, 1, 0)
        assert ids(service) == {"1.png"}


@pytest.mark.slow
def test_a_run_that_is_killed_is_taken_up(tiny: Path, tmp_path: Path) -> None:
    folder, data = tmp_path / "photos", tmp_path / "data"
    for seed in range(PICTURES):
        write_picture(folder / f"{seed}.png", seed)
    with serving(tiny, data, folder) as service:
        while not ids(service):
            time.sleep(0.05)
        # What has been described can be searched while the rest is described.
        assert len(ids(service)) < PICTURES
        assert "has the pictures" not in service.log
        (beside,) = children(service.process.pid, "spawn_main")
        service.stop(signal.SIGKILL)
        assert gone(beside)
    with serving(tiny, data, folder) as service:
        described, again, removed, left_out = counts(done(service))
        assert (again, removed, left_out) == (0, 0, 0)
        assert 0 < described < PICTURES
        assert len(ids(service)) == PICTURES


@pytest.mark.slow
def test_a_collection_of_other_sizes_is_said_and_the_service_stays(
    tiny: Path, tmp_path: Path
) -> None:
    folder, data = tmp_path / "photos", tmp_path / "data"
    write_picture(folder / "1.png", 1)
    with running(tiny, data) as service:
        image = {"id": "other", "descriptors": [[1.0, 2.0]]}
        body = {"collection": COLLECTION, "images": [image]}
        assert service.http.post("/gallery", json=body).is_success
    with serving(tiny, data, folder) as service:
        output = done(service)
        assert "Not all pictures are in the collection: images.0.descriptors: 128" in output
        assert "Traceback" not in output
        assert service.http.get("/health/ready").is_success
        assert ids(service) == {"other"}


def test_what_cannot_be_served_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    images = ("serve", "--images", folder)
    assert "no readable picture" in error_of(capsys, *images)
    write_picture(folder / "1.png", 1)
    assert "does not exist" in error_of(capsys, "serve", "--images", tmp_path / "none")
    assert "--collection needs --images" in error_of(capsys, "serve", "--collection", "own")
    assert "--collection: String should match" in error_of(capsys, *images, "--collection", "a b")
    assert "--extractor is none" in error_of(capsys, *images, "--extractor", "none")
    assert "no extractor 'eye'" in error_of(capsys, *images, "--extractor", "eye")
