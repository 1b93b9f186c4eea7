"""The recipes, run as docs/recipes.md says, on some of the sample's photographs."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from model.config import DEFAULT_CHECKPOINT
from model.descriptor_file import DescriptorReader
from model.extraction.file_extraction import ExtractionRun, extract_to_file
from model.extraction.images import find_images
from model.extraction.registry import load_extractor
from service.page.sample.sample_folders import SampleFolders
from service.page.sample.sample_views import write_views
from tests.e2e.service import RunningService, free_port, ids_of, running

ROOT = Path(__file__).parents[2]
RECIPES = sorted(path.name for path in (ROOT / "recipes").glob("*.py"))
SUBJECTS = 5


@dataclass(frozen=True)
class Kitchen:
    service: RunningService
    folders: SampleFolders


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kitchen]:
    """A service with the shipped checkpoint; views of five subjects and their descriptors."""
    folders = SampleFolders(tmp_path_factory.mktemp("sample"))
    list(islice(write_views(folders), SUBJECTS))
    extractor = load_extractor("efficientnet-lite0")
    for images, file in (
        (folders.gallery, folders.gallery_file),
        (folders.queries, folders.queries_file),
    ):
        extract_to_file(extractor, find_images([images]), file, 48, ExtractionRun())
    with running(DEFAULT_CHECKPOINT, tmp_path_factory.mktemp("data")) as service:
        yield Kitchen(service, folders)


def cook(recipe: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "recipes" / recipe, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=110,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def test_the_page_has_every_recipe() -> None:
    page = (ROOT / "docs" / "recipes.md").read_text()
    assert sorted(set(re.findall(r"python recipes/(\w+\.py)", page))) == RECIPES


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["behind_faiss.py", "behind_qdrant.py"])
def test_an_index_s_order_gets_better(kitchen: Kitchen, recipe: str) -> None:
    """What is printed is what plain numpy and plain requests find."""
    files = (kitchen.folders.gallery_file, kitchen.folders.queries_file)
    url = ("--url", kitchen.service.url)
    process = cook(recipe, *files, *url, "--show", "astronaut-2.jpg")
    assert (process.returncode, process.stderr) == (0, "")

    printed, before, after = {}, 0, 0
    with DescriptorReader(files[0]) as gallery, DescriptorReader(files[1]) as queries:
        cosines = queries.globals() @ gallery.globals().T
        for row, (query_id, query) in zip(cosines, queries, strict=True):
            nearest_ids = [gallery.ids[place] for place in np.argsort(-row)]
            collection = recipe.removeprefix("behind_").removesuffix(".py")
            better = ids_of(kitchen.service.rerank(query, nearest_ids, collection=collection))
            before += nearest_ids[0].split("/")[0] == query_id.removesuffix(".jpg")
            after += better[0].split("/")[0] == query_id.removesuffix(".jpg")
            printed[query_id] = " ".join(nearest_ids[:6]), " ".join(better[:6])
    assert process.stdout.splitlines() == [
        f"astronaut-2.jpg, before: {printed['astronaut-2.jpg'][0]}",
        f"astronaut-2.jpg, after:  {printed['astronaut-2.jpg'][1]}",
        f"R@1 of 5 queries: {before / 5:.1%} before, {after / 5:.1%} after",
    ]
    assert after >= before
    assert printed["astronaut-2.jpg"][0] != printed["astronaut-2.jpg"][1]


def test_a_folder_of_one_s_own_is_searched_by_a_photograph(kitchen: Kitchen) -> None:
    damaged = kitchen.folders.gallery / "damaged.jpg"
    damaged.write_text("no image")
    try:
        query = kitchen.folders.queries / "astronaut-2.jpg"
        options = ("--url", kitchen.service.url, "--top", 20, "--show", 3)
        process = cook("own_folder.py", kitchen.folders.gallery, query, *options)
    finally:
        damaged.unlink()
    assert process.returncode == 0, process.stderr
    assert process.stderr.startswith(f"left out: {damaged}: not a readable image")
    first, *rows = process.stdout.splitlines()
    assert first == "30 images, the first 20 re-ranked"
    assert len(rows) == 3
    assert re.fullmatch(r"1\. astronaut-2/\d\.jpg  0\.\d\d  \(was \d+\.\)", rows[0])


def test_descriptors_of_any_size_are_re_ranked(kitchen: Kitchen) -> None:
    """768 numbers, on a service that was told nothing about them."""
    process = cook("own_descriptors.py", "--url", kitchen.service.url)
    assert (process.returncode, process.stderr) == (0, "")
    before, after = (
        sum(image_id.startswith("object-7/") for image_id in line.split()[1:])
        for line in process.stdout.splitlines()
    )
    assert after >= before
    assert after >= 5


def test_a_service_that_is_away_is_named_in_one_line() -> None:
    closed = f"http://127.0.0.1:{free_port()}"
    process = cook("own_descriptors.py", "--url", closed)
    assert process.returncode == 2
    (line,) = process.stderr.splitlines()
    assert closed in line


@pytest.mark.parametrize("recipe", [name for name in RECIPES if name != "own_descriptors.py"])
def test_bad_input_leaves_one_line(
    kitchen: Kitchen,
    recipe: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(*arguments: object) -> str:
        """In this process: one of its own takes seconds to start."""
        monkeypatch.setattr(sys, "argv", [recipe, *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_info:
            runpy.run_path(str(ROOT / "recipes" / recipe), run_name="__main__")
        captured = capsys.readouterr()
        assert (exit_info.value.code, captured.out) == (2, ""), captured.err
        (line,) = captured.err.splitlines()
        return line

    folders, text = kitchen.folders, tmp_path / "text.h5"
    text.write_text("neither descriptors nor an image")
    good = (folders.gallery_file, folders.queries_file)
    if recipe == "own_folder.py":
        good = (tmp_path / "one", folders.queries / "astronaut-1.jpg")
        good[0].mkdir()
        (good[0] / "one.jpg").write_bytes(good[1].read_bytes())
        (tmp_path / "empty").mkdir()
        empty = refused(tmp_path / "empty", good[1], "--url", kitchen.service.url)
        assert "empty: no image" in empty
    closed = f"http://127.0.0.1:{free_port()}"
    assert closed in refused(*good, "--url", closed)
    assert str(text) in refused(good[0], text)
    assert "no such file" in refused(tmp_path / "nothing", good[1])
    if recipe == "behind_qdrant.py":
        assert "Qdrant: " in refused(*good, "--url", kitchen.service.url, "--qdrant", closed)
