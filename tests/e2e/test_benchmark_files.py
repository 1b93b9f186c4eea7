"""Published files that are very large, and those that are wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from model.checkpoint import save_checkpoint
from model.config import ElvisConfig, ExtractorId
from model.pairs.elvis import ElvisReranker
from tests.e2e.by_hand import figures_of, made_roxford
from tests.e2e.command import error_of, program_error
from tests.e2e.service import LOCORE
from tests.factories import save_tiny, tiny_config
from tests.minibench import as_tensor, made_up, nearest, write_pickle

pytestmark = pytest.mark.slow


def test_a_million_images_take_less_than_a_gigabyte(tmp_path: Path) -> None:
    config = tiny_config()
    checkpoint = save_tiny(tmp_path, config)
    rng = np.random.default_rng(5)
    rows = 1_000_000
    used = sorted(rng.choice(rows, 12, replace=False).tolist())
    few = made_up(rng, [0, 1] * 6, config, (16, 12))
    queries = few.some([0, 1])
    queries.write(tmp_path / "rparis6k", "dinov2_query")
    folder = tmp_path / "rparis6k+1m"
    folder.mkdir()
    with h5py.File(folder / "dinov2_gallery_local.hdf5", "w") as file:
        features = file.create_dataset(
            "features", (rows, 10, 5 + 16), np.float32, chunks=(16, 10, 5 + 16)
        )
        for place, image in zip(used, few.locals, strict=True):
            features[place, :8] = image
            features[place, 8:, 3] = 1
    globals_ = np.memmap(folder / "dinov2_gallery_global.pt", np.float32, "w+", shape=(rows, 12))
    globals_[used] = few.globals
    globals_.flush()
    lists = nearest(queries, few, 12)
    lists[1] = np.array(used)[lists[1].astype(int)]
    write_pickle(folder / "nn_dinov2.pkl", as_tensor(lists))
    truth = [{"easy": used[q::4], "hard": used[q + 2 :: 4], "junk": []} for q in range(2)]
    write_pickle(tmp_path / "rparis6k" / "gnd_rparis6k.pkl", {"gnd": truth})
    figures = tmp_path / "figures.json"
    measure = (
        "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:]).returncode; "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(done)"
    )
    command: list[object] = [sys.executable, "-c", measure, LOCORE, "eval", "rparis6k+1m"]
    command += ["--data", tmp_path, "--checkpoint", checkpoint, "--protocols", "medium,hard"]
    command += ["--device", "cpu", "--json", figures]
    process = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=110,
        env=dict(os.environ) | {"OMP_NUM_THREADS": "1"},
    )
    assert process.returncode == 0, process.stderr
    assert "1,000,000 gallery images" in " ".join(process.stdout.split())
    kilobytes = int(process.stdout.splitlines()[-1])
    assert kilobytes < 1_000_000
    figures_found = figures_of(figures)
    assert list(figures_found) == ["medium", "hard"]
    # Images of the query's own kind are six of twelve, and lists are of all twelve.
    assert figures_found["medium"]["first_stage"]["mP@10"] >= 0.4
    assert 0 < figures_found["hard"]["reranked"]["mAP"] <= 1


def test_files_that_are_wrong_are_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, truth = made_roxford(tmp_path / "data")
    checkpoint = save_tiny(tmp_path)
    folder = made.data / "roxford5k"
    common = ["eval", "roxford5k", "--data", made.data, "--checkpoint", checkpoint, "--window", 20]

    def broken(name: str, change: Callable[[Path], object]) -> str:
        """What is said with one file changed."""
        path = folder / name
        content = path.read_bytes()
        try:
            change(path)
            message = error_of(capsys, *common)
        finally:
            path.write_bytes(content)
        assert name in message
        return message

    def poisoned(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            file["features"][:, 0, 6] = np.nan

    def without_globals(path: Path) -> None:
        np.full(made.gallery.globals.shape, np.nan, np.float32).tofile(path)

    nn, gnd = "nn_dinov2.pkl", "gnd_roxford5k.pkl"
    locals_, globals_ = "dinov2_gallery_local.hdf5", "dinov2_gallery_global.pt"
    half = (folder / locals_).stat().st_size // 2
    assert "not a readable HDF5" in broken(locals_, lambda path: os.truncate(path, half))
    assert "NaN" in broken(locals_, poisoned)
    assert "NaN" in broken(globals_, without_globals)
    assert "are no 50 rows" in broken(globals_, lambda path: os.truncate(path, 7))
    assert "not a readable pickle" in broken(nn, lambda path: os.truncate(path, 99))
    assert "(2, queries, k)" in broken(nn, lambda path: write_pickle(path, made.lists[0]))
    past = made.lists + 20
    assert "but the gallery has 50" in broken(nn, lambda path: write_pickle(path, past))
    calls = b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR."
    assert "names os.system" in broken(gnd, lambda path: path.write_bytes(calls))
    assert not (tmp_path / "ran").exists()
    late = {"gnd": [truth[0] | {"easy": [50]}, *truth[1:]]}
    assert "has index 50" in broken(gnd, lambda path: write_pickle(path, late))
    lines = "test_gallery.txt"
    assert "1 lines" in broken(lines, lambda path: path.write_text("a.jpg\n"))

    other = tmp_path / "elvis.safetensors"
    extractor = ExtractorId(name="made-up", version="1")
    config = ElvisConfig(name="elvis", extractor=extractor, descriptor_dim=24)
    save_checkpoint(ElvisReranker(config), other)
    assert "but 24 are required" in error_of(capsys, *common[:4], "--checkpoint", other)
    message = error_of(capsys, *common, "--descriptor-name", "cvnet")
    assert message.count("cvnet_") == 4
    assert "missing" in message
    assert "--top and --stride need --sliding" in error_of(capsys, *common, "--top", 9)
    assert "larger than the window" in error_of(
        capsys, *common, "--sliding", "end-to-start", "--stride", 21
    )
    assert "--grid searches" in error_of(capsys, *common, "--grid", "--alpha", 0.5)
    assert "--protocols" in error_of(capsys, *common, "--protocols", "medium,odd")
    # And once as a process of its own.
    assert "other.pkl" in program_error(*common, "--neighbours", tmp_path / "other.pkl")
