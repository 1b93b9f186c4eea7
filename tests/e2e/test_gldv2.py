"""Training on LOCORE's published layout, by one process and by two."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from model.checkpoint import load_checkpoint
from model.config import LongformerConfig
from model.formats.nn_file import Neighbours, write_neighbours
from tests.e2e.command import error_of, program_output, run_here
from tests.e2e.service import LOCORE
from tests.factories import unit

IMAGES, LABELS, DIM, LOCALS = 48, 6, 16, 5
TORCHRUN = str(Path(sys.executable).with_name("torchrun"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """gldv2-train as LOCORE writes it: images of a landmark share their locals, but for noise."""
    folder = tmp_path_factory.mktemp("gldv2-train")
    rng = np.random.default_rng(0)
    labels = np.arange(IMAGES) % LABELS
    landmarks = unit(rng, LABELS * LOCALS, DIM).reshape(LABELS, LOCALS, DIM)
    locals_ = landmarks[labels] + 0.2 * unit(rng, IMAGES * LOCALS, DIM).reshape(-1, LOCALS, DIM)
    features = np.zeros((IMAGES, LOCALS + 2, 5 + DIM), np.float32)
    features[:, LOCALS:, 3] = 1
    features[:, :LOCALS, 5:] = locals_
    # As `locore extract --list` leaves an image that it could not read.
    features[7] = 0
    features[7, :, 3] = 1
    with h5py.File(folder / "dinov2_local.hdf5", "w") as file:
        file["features"] = features
    globals_ = locals_.mean(1) + 0.3 * unit(rng, IMAGES, DIM)
    globals_ = (globals_ / np.linalg.norm(globals_, axis=1, keepdims=True)).astype(np.float32)
    globals_[7] = 0
    globals_.tofile(folder / "dinov2_global.pt")
    cosines = globals_ @ globals_.T
    order = np.argsort(-cosines, axis=1)[:, :20]
    nearest = Neighbours(np.take_along_axis(cosines, order, axis=1), order)
    write_neighbours(folder / "nn_dinov2.pkl", nearest)
    lines = [f"{n}.jpg,{1000 + label},640,480" for n, label in enumerate(labels)]
    (folder / "train_750k.txt").write_text("\n".join(lines) + "\n")
    return folder


COMMON = ["--steps", 4, "--batch", 2, "--list-length", 8, 8, "--depth", 1, "--device", "cpu"]
COMMON += ["--attention-heads", 2, "--descriptors-per-image", LOCALS]
OURS = [*COMMON, "--dim", 32, "--image-layers", 1]


def by_two_processes(*arguments: object) -> str:
    process = subprocess.run(
        [TORCHRUN, "--standalone", "--nproc-per-node", "2", "--no-python", LOCORE]
        + [str(argument) for argument in arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_two_processes_learn_what_one_learns(folder: Path, tmp_path: Path) -> None:
    """The same lists in each step, dealt out to two processes or to two passes of one."""
    together, alone = tmp_path / "together.safetensors", tmp_path / "alone.safetensors"
    arguments = ["train", "--gldv2", folder, *OURS]
    output = by_two_processes(*arguments, "-o", together)
    assert output.count("no images were held out") == 1
    log = (tmp_path / "together.run" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == [4]
    program_output(*arguments, "--accumulate", 2, "-o", alone)
    first, second = load_file(together), load_file(alone)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(tensor, second[name], atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_locores_own_backbone_in_bfloat16(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "longformer.safetensors"
    arguments = ["train", "--gldv2", folder, *COMMON, "--backbone", "longformer"]
    arguments += [
        "--dim",
        16,
        "--attention-window",
        16,
        "--dtype",
        "bfloat16",
        "--recompute",
        "-o",
        path,
    ]
    program_output(*arguments)
    config = load_checkpoint(path, torch.device("cpu")).config
    assert isinstance(config, LongformerConfig)
    assert (config.dim, config.depth, config.global_dim, config.slots) == (16, 1, DIM, LOCALS + 2)
    # It goes on from there, as it would from a published checkpoint.
    again = ["train", "--gldv2", folder, "--from", path, "--steps", 1, "--batch", 1]
    program_output(*again, "--list-length", 8, 8, "-o", tmp_path / "more.safetensors")


def test_a_run_goes_on_with_the_same_lists_a_step_however_they_are_dealt_out(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.safetensors"
    arguments = ["train", "--gldv2", folder, *OURS, "-o", path]
    code, output, _ = run_here(capsys, *arguments)
    assert (code, output.count("no images were held out")) == (0, 1)
    again = [*arguments, "--resume", "--batch", 1]
    assert "2 lists a step, but now 1" in error_of(capsys, *again)
    assert run_here(capsys, *again, "--accumulate", 2)[0] == 0


def test_files_at_odds_are_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["-o", tmp_path / "x.safetensors"]
    assert "missing: " in error_of(capsys, "train", "--gldv2", tmp_path, *out)
    assert "nothing_local.hdf5" in error_of(
        capsys, "train", "--gldv2", folder, "--descriptor-name", "nothing", *out
    )
    images = ["train", "--images", folder, *out]
    assert "need --gldv2" in error_of(capsys, *images, "--descriptor-name", "dinov2")
    longformer = ["--gldv2", folder, "--backbone", "longformer", "--attention-window", 16]
    longformer += ["--dim", 16, "--attention-heads", 2, "--descriptors-per-image", LOCALS]
    assert "reads 730 images at most" in error_of(
        capsys, "train", *longformer, "--list-length", 731, 731, *out
    )
    assert "--recompute is for" in error_of(capsys, "train", "--gldv2", folder, "--recompute", *out)
    assert "has its own backbone" in error_of(
        capsys, "train", "--gldv2", folder, "--from", "--backbone", "mamba", *out
    )
    assert "image_layers: unknown size" in error_of(
        capsys, "train", "--gldv2", folder, "--backbone", "longformer", "--image-layers", 1, *out
    )
