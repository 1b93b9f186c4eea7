"""locore rerank-batch: the service's answers, from files to a file."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _pytest.capture import CaptureFixture

from model.descriptor_file import DescriptorReader
from tests.batch_files import EMPTY, made_up_lists, read_lines, write_images, write_lines
from tests.descriptor_files import write_descriptors
from tests.e2e.command import error_of, run_here
from tests.e2e.service import LOCORE, RunningService, ids_of, scores_of

QUERIES = [f"q/{n}" for n in range(24)]
GALLERY = [f"g/{n}" for n in range(300)]
Lines = list[dict[str, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("files")
    write_images(made / "queries.h5", [*QUERIES, f"q/{EMPTY}"], seed=1)
    write_images(made / "gallery.h5", [*GALLERY, f"g/{EMPTY}"], seed=2)
    write_lines(made / "lists.jsonl", made_up_lists(QUERIES, GALLERY, 260))
    return made


@pytest.fixture
def arguments(folder: Path, checkpoint: Path) -> list[object]:
    """What every command here has in common but for the lists."""
    files = ["--queries", folder / "queries.h5", "--gallery", folder / "gallery.h5"]
    return ["rerank-batch", *files, "--checkpoint", checkpoint, "--device", "cpu"]


def answered(capsys: CaptureFixture[str], output: Path, *arguments: object) -> Lines:
    code, out, err = run_here(capsys, *arguments, "-o", output)
    assert (code, out) == (0, ""), err
    assert not list(output.parent.glob("*.partial*"))
    return read_lines(output)


def assert_same(some: Lines, others: Lines) -> None:
    """Every order the same, scores to what the contract says."""
    assert len(some) == len(others)
    for one, other in zip(some, others, strict=True):
        for line in (one, other):
            assert set(line) == {"query", "results", "missing"}
        assert (one["query"], one["missing"]) == (other["query"], other["missing"])
        for field in ("id", "index"):
            assert [r[field] for r in one["results"]] == [r[field] for r in other["results"]]
        scores = [[r["relevance_score"] for r in line["results"]] for line in (one, other)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-4)


@pytest.mark.parametrize("direction", ["end-to-start", "start-to-end-to-start"])
def test_the_answers_are_those_of_the_service(
    service: RunningService,
    folder: Path,
    arguments: list[object],
    tmp_path: Path,
    capsys: CaptureFixture[str],
    direction: str,
) -> None:
    options = {"alpha": 0.3, "temperature": 0.7, "window": 60, "stride": 25, "top_n": 40}
    flags = [part for name, value in options.items() for part in (_flag(name), value)]
    answers = answered(
        capsys,
        tmp_path / "out.jsonl",
        *arguments,
        "--shortlists",
        folder / "lists.jsonl",
        *flags,
        "--direction",
        direction,
    )
    lists = read_lines(folder / "lists.jsonl")
    assert [line["query"] for line in answers] == QUERIES
    with (
        DescriptorReader(folder / "gallery.h5") as gallery,
        DescriptorReader(folder / "queries.h5") as queries,
    ):
        images = {i: gallery[place] for place, i in enumerate(GALLERY)}
        for start in range(0, 300, 150):
            some = {i: images[i] for i in GALLERY[start : start + 150]}
            assert service.register(some, collection="batch").is_success
        for place, (line, asked) in enumerate(zip(answers, lists, strict=True)):
            body = {k: v for k, v in asked.items() if k == "global_scores"}
            answer = service.rerank(
                queries[place],
                asked["gallery_ids"],
                collection="batch",
                direction=direction,
                **options,
                **body,
            )
            assert [r["id"] for r in line["results"]] == ids_of(answer)
            assert [r["index"] for r in line["results"]] == [
                asked["gallery_ids"].index(i) for i in ids_of(answer)
            ]
            scores = {r["id"]: r["relevance_score"] for r in line["results"]}
            assert scores == pytest.approx(scores_of(answer), abs=1e-4)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def test_neither_the_batch_nor_the_cache_changes_an_answer(
    folder: Path, arguments: list[object], tmp_path: Path, capsys: CaptureFixture[str]
) -> None:
    """One window a pass; some; all that fit. The last also in another order of the lists."""
    lists = ["--shortlists", folder / "lists.jsonl"]
    runs = [
        answered(capsys, tmp_path / f"{tokens}.jsonl", *arguments, *lists, "--batch-tokens", tokens)
        for tokens in (1, 3000, 200_000)
    ]
    runs.append(answered(capsys, tmp_path / "c.jsonl", *arguments, *lists, "--cache-bytes", 2000))
    backwards = write_lines(tmp_path / "b.jsonl", reversed(read_lines(folder / "lists.jsonl")))
    turned = answered(capsys, tmp_path / "t.jsonl", *arguments, "--shortlists", backwards)
    for other in (*runs[1:], turned[::-1]):
        assert_same(runs[0], other)


def test_the_first_stage_may_be_found_here(
    folder: Path, arguments: list[object], tmp_path: Path, capsys: CaptureFixture[str]
) -> None:
    """By the globals, as `locore neighbours` finds it, and from that command's file. With alpha 1
    the order is the first stage's own."""
    lists = tmp_path / "nn.pkl"
    files = ["--queries", folder / "queries.h5", "--gallery", folder / "gallery.h5"]
    assert run_here(capsys, "neighbours", *files, "-k", 50, "-o", lists)[0] == 0
    common = [*arguments, "--top", 30, "--on-missing", "skip"]
    answers = answered(capsys, tmp_path / "a.jsonl", *common)
    assert_same(answers, answered(capsys, tmp_path / "b.jsonl", *common, "--neighbours", lists))
    assert len(answers) == 25
    assert answers[-1]["results"] == []  # there is nothing to compare with
    with DescriptorReader(folder / "gallery.h5") as gallery:
        rows, ids = gallery.globals(), gallery.ids
    with DescriptorReader(folder / "queries.h5") as queries:
        asked = queries.globals()
    first = answered(capsys, tmp_path / "c.jsonl", *common, "--alpha", 1)
    for query, line in zip(asked[:24], first, strict=False):
        nearest = [ids[i] for i in np.argsort(-(rows @ query))[:30]]
        valid = [i for i in nearest if not i.endswith(EMPTY)]
        assert [r["id"] for r in line["results"]] == valid
        assert line["missing"] == [i for i in nearest if i.endswith(EMPTY)]
        assert [r["index"] for r in line["results"]] == [nearest.index(i) for i in valid]


def test_what_is_missing_ends_the_run_or_is_left_out(
    folder: Path, arguments: list[object], tmp_path: Path, capsys: CaptureFixture[str]
) -> None:
    lists: Lines = [
        {"query": "q/0", "gallery_ids": ["g/1", "nobody", "g/2"], "global_scores": [3, 2, 1]},
        {"query": "q/1", "gallery_ids": [f"g/{EMPTY}"]},
        {"query": "nobody", "gallery_ids": ["g/1", "g/2"]},
        {"query": "q/2", "gallery_ids": ["g/7"]},
    ]
    path = write_lines(tmp_path / "lists.jsonl", lists)
    out = tmp_path / "out.jsonl"
    skip = [*arguments, "--shortlists", path, "--on-missing", "skip", "--alpha", 1]
    answers = answered(capsys, out, *skip)
    assert [line["query"] for line in answers] == ["q/0", "q/1", "nobody", "q/2"]
    assert [line["missing"] for line in answers] == [["nobody"], [f"g/{EMPTY}"], [], []]
    images = [[(r["id"], r["index"]) for r in line["results"]] for line in answers]
    assert images == [[("g/1", 0), ("g/2", 2)], [], [], [("g/7", 0)]]
    assert [r["relevance_score"] for r in answers[0]["results"]] == [3, 1]
    for line, message in (
        (0, "1 images of the list of query 'q/0', 'nobody' first"),
        (1, "of the list of query 'q/1'"),
        (2, "no descriptors of query 'nobody'"),
    ):
        write_lines(path, lists[line : line + 1])
        assert message in error_of(
            capsys, *arguments, "--shortlists", path, "-o", out, "--overwrite"
        )


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(
    folder: Path, arguments: list[object], tmp_path: Path, capsys: CaptureFixture[str]
) -> None:
    lists = write_lines(tmp_path / "lists.jsonl", made_up_lists(QUERIES * 10, GALLERY, 40, seed=3))
    common = [*arguments, "--shortlists", lists]
    expected = answered(capsys, tmp_path / "whole.jsonl", *common)
    out = tmp_path / "out.jsonl"
    partial = tmp_path / "out.jsonl.partial"
    environment = {n: v for n, v in os.environ.items() if not n.startswith("LOCORE_")}
    process = subprocess.Popen(
        [LOCORE, *map(str, common), "-o", str(out)],
        env=environment | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
    )
    try:
        while not partial.exists() or partial.read_bytes().count(b"\n") < 30:
            assert process.poll() is None
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not out.exists()
    assert "--resume" in error_of(capsys, *common, "-o", out)
    # As where it was killed within a line.
    with partial.open("a") as file:
        file.write('{"query": "q')
    written = partial.read_bytes().count(b"\n")
    assert 30 <= written < len(expected)
    assert "another --alpha" in error_of(capsys, *common, "-o", out, "--resume", "--alpha", 1)
    code, _, err = run_here(capsys, *common, "-o", out, "--resume", "--batch-tokens", 5000)
    assert code == 0
    assert f"{len(expected) - written} queries re-ranked" in err
    assert f"({written} were done before)" in err
    assert_same(read_lines(out), expected)
    assert not list(tmp_path.glob("*.partial*"))
    assert "nothing is left to do" in run_here(capsys, *common, "-o", out, "--resume")[2]
    assert "--overwrite replaces it" in error_of(capsys, *common, "-o", out)
    assert "nan is not a finite" in error_of(
        capsys, *common, "-o", tmp_path / "x", "--alpha", "nan"
    )
    # As an --overwrite that was killed leaves it: what is there is not what was asked for.
    partial.write_bytes(b"")
    assert "--overwrite starts again" in error_of(capsys, *common, "-o", out, "--resume")


def test_what_does_not_fit_is_said_in_one_line(
    folder: Path, arguments: list[object], tmp_path: Path, capsys: CaptureFixture[str]
) -> None:
    good = {"query": "q/0", "gallery_ids": ["g/1", "g/2"]}
    path = tmp_path / "lists.jsonl"
    out = tmp_path / "out.jsonl"
    for line, message in (
        ('{"query": "q/0", ', "lists.jsonl: line 3: "),
        ('{"query": "q/0"}', "line 3: gallery_ids: Field required"),
        ('{"query": "q/0", "gallery_ids": []}', "line 3: gallery_ids: "),
        ('{"query": "q/0", "gallery_ids": ["g/1", "g/1"]}', "line 3: id 'g/1' occurs twice"),
        (
            '{"query": "q/0", "gallery_ids": ["g/1"], "global_scores": [1, 2]}',
            "line 3: 2 scores for 1 ids",
        ),
        ('{"query": "q/0", "gallery_ids": ["g/1"], "global_scores": [NaN]}', "line 3: "),
        ('{"query": "q/0", "gallery_ids": ["g/1"], "top": 3}', "line 3: top: "),
    ):
        write_lines(path, [good])
        with path.open("a") as file:
            file.write("\n" + line + "\n")
        message_here = error_of(capsys, *arguments, "--shortlists", path, "-o", out, "--overwrite")
        assert message in message_here, message_here
    write_lines(path, [good])
    write_descriptors(tmp_path / "other.h5", ["g/1", "g/2"], sizes=(9, 12))
    files = [*arguments[:4], tmp_path / "other.h5", *arguments[5:]]
    message_here = error_of(capsys, *files, "--shortlists", path, "-o", out)
    assert re.search(r"descriptors of \d numbers, but .*\.h5 has \d", message_here), message_here
    assert "no such file" in error_of(
        capsys, *arguments, "--shortlists", tmp_path / "no", "-o", out
    )
    assert "no such file" in error_of(
        capsys, *arguments, "--neighbours", tmp_path / "no", "-o", out
    )
    common = [*arguments, "--shortlists", path, "--overwrite"]
    assert "stride" in error_of(capsys, *common, "-o", out, "--window", 3, "--stride", 4)
    assert "cannot be written" in error_of(capsys, *common, "-o", tmp_path / "no" / "out")
    assert "not both" in error_of(capsys, *common, "--neighbours", path, "-o", out)
    assert "not both" in error_of(capsys, *common, "--resume", "-o", out)
