"""`locore train` on labelled images, on views, and on images without labels."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from safetensors.torch import load_file

from model.checkpoint import load_checkpoint
from model.config import DEFAULT_CHECKPOINT, ElvisConfig, ExtractorId, MambaConfig, ModelConfig
from model.evaluation.grocery import validation_classes
from model.reranker import MambaReranker
from tests.descriptor_files import MADE_UP, write_descriptors
from tests.e2e.command import error_of, output_of
from tests.factories import SIZES, save_tiny
from tests.metric_files import write_metric

OTHER = ExtractorId(name="other", version="3")
SHORT = ["--steps", 2, "--batch", 2, "--list-length", 4, 8, "--device", "cpu"]
TINY = [*SHORT, "--dim", 32, "--depth", 1, "--image-layers", 1]
CLASSES = 12
CPU_ALONE = {"CUDA_VISIBLE_DEVICES": ""}


def names(kind: str, classes: int = CLASSES, count: int = 6) -> list[str]:
    """`write_descriptors` makes those alike whose names are alike up to the hyphen."""
    return [f"c{c}/{kind}{c}-{n}.png" for c in range(classes) for n in range(count)]


def labels_csv(folder: Path, ids: list[str]) -> Path:
    folder.mkdir()
    rows = [
        f"{i},{i.split('/')[0][1:]},{'query' if n % 3 == 0 else 'gallery'}"
        for n, i in enumerate(ids)
    ]
    (folder / "labels.csv").write_text("\n".join(["path,label,role", *rows]) + "\n")
    return folder


@pytest.fixture
def shoes(tmp_path: Path) -> Path:
    """Labelled by a CSV; by two extractors: shoes.h5 and shoes-other.h5; views of some."""
    ids = names("shoe")
    write_descriptors(tmp_path / "shoes.h5", ids)
    write_descriptors(tmp_path / "shoes-other.h5", ids, sizes=(5, 20), extractor=OTHER)
    views = [f"{image_id}@{n}" for image_id in ids[:20] for n in range(2)]
    write_descriptors(tmp_path / "views.h5", views)
    return labels_csv(tmp_path / "shoes", ids)


@pytest.fixture
def coins(tmp_path: Path) -> Path:
    """Labelled by sub-folders."""
    ids = names("coin", classes=3)
    for image_id in ids:
        path = tmp_path / "coins" / image_id
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (1, 1)).save(path)
    write_descriptors(tmp_path / "coins.h5", ids, seed=1)
    return tmp_path / "coins"


def config_of(path: Path) -> ModelConfig:
    return load_checkpoint(path, torch.device("cpu")).config


def test_training_with_a_fold_going_on_and_measuring(
    shoes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = tmp_path / "new.safetensors"
    common = ["--data", shoes, "--descriptors", tmp_path / "shoes.h5"]
    arguments = ["train", *common, "--fold", 1, *TINY, "--steps", 27]
    output = output_of(capsys, *arguments, "-o", trained)
    assert "on the validation images, alpha" in output
    config = config_of(trained)
    assert isinstance(config, MambaConfig)
    apart = validation_classes(np.arange(CLASSES), 1)
    assert config.held_out_classes == tuple(apart.tolist())
    assert (config.name, config.dim, config.image_layers, config.sizes) == ("new", 32, 1, None)
    log = [json.loads(line) for line in (tmp_path / "new.run" / "log.jsonl").open()]
    assert [line["step"] for line in log] == [25, 27]

    # Going on comes out as if it had not been stopped, and only on the same data.
    first = load_file(trained)
    output_of(capsys, *arguments, "-o", trained, "--resume")
    second = load_file(trained)
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = [*arguments, "-o", trained, "--resume"]
    assert "other sizes, options or data" in error_of(capsys, *other, "--steps", 28)
    assert "other sizes, options or data" in error_of(capsys, *other, "--fold", 2)

    figures = tmp_path / "figures.json"
    grocery = ["eval", "grocery", *common, "--fold", 1, "--checkpoint", trained]
    output = output_of(capsys, *grocery, "--json", figures)
    assert "6 queries, 12 gallery images" in output
    rows = {row["method"]: row for row in json.loads(figures.read_text())}
    assert list(rows) == ["first stage", "Chamfer", "new"]
    assert all(0 <= row["recall_at_1"] <= 1 for row in rows.values())
    assert "was trained on classes of fold 0" in error_of(
        capsys, "eval", "grocery", *common, "--checkpoint", trained
    )
    metric = tmp_path / "made-up.metric.safetensors"
    write_metric(metric, SIZES)
    output_of(capsys, *grocery, "--metric", metric, "--json", figures)
    in_metric = {row["method"]: row for row in json.loads(figures.read_text())}
    assert in_metric["first stage"] != rows["first stage"]
    write_metric(metric, replace(SIZES, local_dim=SIZES.local_dim + 1))
    assert "--metric" in error_of(capsys, *grocery, "--metric", metric)


def test_several_folders_extractors_and_views(
    shoes: Path, coins: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = tmp_path / "mixed.safetensors"
    arguments = ["train", "--data", shoes, "--data", coins]
    for file in ("shoes.h5", "shoes-other.h5", "coins.h5"):
        arguments += ["--descriptors", tmp_path / file]
    arguments += ["--views", tmp_path / "views.h5", *TINY, "-o", trained]
    assert "alpha and T are the defaults" in output_of(capsys, *arguments)
    config = config_of(trained)
    assert config.extractor == MADE_UP
    assert config.held_out_classes == ()


@pytest.mark.parametrize("mixer", ["none", "windowed-attention"])
def test_another_mixer(
    shoes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], mixer: str
) -> None:
    trained = tmp_path / "x.safetensors"
    arguments = ["train", "--data", shoes / "labels.csv", "--descriptors", tmp_path / "shoes.h5"]
    arguments += [*TINY, "--mixer", mixer, "--matches-per-image", 3, "-o", trained]
    output_of(capsys, *arguments)
    config = config_of(trained)
    assert isinstance(config, MambaConfig)
    assert (config.mixer, config.matches_per_image) == (mixer, 3)
    if mixer == "windowed-attention":
        message = error_of(capsys, *arguments, "--list-length", 4, 101)
        assert "x reads 100 images at most" in message


def test_the_backbone_of_pairs(
    shoes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = tmp_path / "pairs.safetensors"
    arguments = ["train", "--data", shoes, "--descriptors", tmp_path / "shoes.h5"]
    arguments += [*SHORT, "--backbone", "elvis", "--fold", 0]
    assert "on the validation images" in output_of(capsys, *arguments, "-o", trained)
    assert isinstance(config_of(trained), ElvisConfig)
    message = error_of(capsys, *arguments, "--mixer", "none", "-o", tmp_path / "y.safetensors")
    assert "elvis: mixer: unknown size" in message


def test_a_checkpoint_goes_on_with_descriptors_of_any_size(
    shoes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start, adapted = save_tiny(tmp_path), tmp_path / "adapted.safetensors"
    arguments = ["train", "--data", shoes, "--descriptors", tmp_path / "shoes-other.h5", *SHORT]
    output_of(capsys, *arguments, "--from", start, "-o", adapted)
    before, after = config_of(start), config_of(adapted)
    assert after == before.model_copy(update={"name": "adapted"})
    moved = [not torch.equal(*pair) for pair in zip(*map(tensors, (start, adapted)), strict=True)]
    assert any(moved)


def tensors(path: Path) -> list[torch.Tensor]:
    return [tensor for _, tensor in sorted(load_file(path).items())]


def test_adapting_to_a_folder_of_images_without_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    photograph = Image.fromarray(skimage.data.astronaut())
    for n in range(10):
        place = 30 * n
        photograph.crop((place, place, place + 180, place + 160)).save(folder / f"{n}.png")
    adapted = tmp_path / "mine.safetensors"
    output = output_of(capsys, "train", "--images", folder, "--from", *SHORT, "-o", adapted)
    assert "on the validation images" in output
    config, shipped = config_of(adapted), config_of(DEFAULT_CHECKPOINT)
    changed = {"name": "", "rerank": shipped.rerank, "held_out_classes": ()}
    assert config.name == "mine"
    assert config.model_copy(update=changed) == shipped.model_copy(update=changed)
    views = tmp_path / "mine.run" / "views.h5"
    output = output_of(capsys, "eval", "views", "--descriptors", views, "--checkpoint", adapted)
    assert "20 queries, 20 gallery images" in output
    assert "--descriptors" in error_of(capsys, "eval", "views")


def test_what_is_wrong_is_one_line(
    shoes: Path, coins: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.safetensors"
    file = tmp_path / "shoes.h5"

    def wrong(*arguments: object, data: Path = shoes) -> str:
        line = error_of(capsys, "train", "--data", data, "-o", out, *arguments)
        assert not out.exists()
        return line

    text = tmp_path / "text.h5"
    text.write_text("not HDF5")
    assert "no.h5: no such file" in wrong("--descriptors", tmp_path / "no.h5")
    assert "not a readable HDF5 file" in wrong("--descriptors", text)
    write_descriptors(tmp_path / "some.h5", names("shoe")[1:])
    line = wrong("--descriptors", tmp_path / "some.h5")
    assert f"{shoes}: no file of --descriptors has all of its images" in line
    # Two folders, and a file for one of them.
    line = wrong("--data", coins, "--descriptors", file)
    assert f"{coins}: no file of --descriptors" in line
    assert "does not exist" in wrong("--descriptors", file, data=tmp_path / "nowhere")

    either = "either --images, or --data and --descriptors, or --gldv2"
    assert either in wrong()
    assert either in wrong("--images", shoes, "--descriptors", file)
    assert either in error_of(capsys, "train", "--descriptors", file, "-o", out)
    for flag in (["--fold", 1], ["--views", file]):
        line = error_of(capsys, "train", "--images", coins, *flag, "-o", out)
        assert "--views and --fold need --data" in line
    assert "need --gldv2" in wrong("--descriptors", file, "--descriptor-dim", 8)
    assert "must end in .safetensors" in error_of(
        capsys, "train", "--data", shoes, "--descriptors", file, "-o", tmp_path / "x.pt"
    )
    assert "has its own backbone and sizes" in wrong("--descriptors", file, "--from", "--dim", 32)
    assert "small needs descriptors of its own sizes" in wrong(
        "--descriptors", file, "--from", "small"
    )
    assert "multiple of attention_heads" in wrong("--descriptors", file, "--dim", 33)
    assert "--recompute is for a Longformer" in wrong("--descriptors", file, "--recompute")
    assert "shortest comes first" in wrong("--descriptors", file, "--list-length", 9, 8)
    assert "is not a view" in wrong("--descriptors", file, "--views", file)

    csv = shoes / "labels.csv"
    content = csv.read_text()
    for damaged, message in (
        (content.replace("path,label", "file,label"), "needs columns path and label"),
        (content.replace("query", "asker"), "role 'asker' is neither query nor gallery"),
        (content + "c0/shoe0-0.png,0,query\n", "c0/shoe0-0.png is named twice"),
        ("path,label,role\n", "names no image"),
        (content.replace("query", "gallery"), "images of one in both roles"),
    ):
        csv.write_text(damaged)
        assert message in wrong("--descriptors", file)


@pytest.mark.slow
def test_the_recipe_of_the_default(shoes: Path, tmp_path: Path) -> None:
    """Without a GPU, for a second: it learns something, and what it writes can be served."""
    recipe = Path(__file__).parents[2] / "recipes" / "default_checkpoint" / "train.py"
    shoes_, views = (f"{tmp_path / name}.h5" for name in ("shoes", "views"))
    sources = ["--data", str(shoes), "--descriptors", shoes_, "--views", views]
    asked = [*sources, "--seconds", "1", "--workers", "1", "--seed", "3", "-o", str(tmp_path)]
    subprocess.run([sys.executable, recipe, *asked], check=True, env=os.environ | CPU_ALONE)
    model = load_checkpoint(tmp_path / "relations-3.safetensors", torch.device("cpu"))
    torch.manual_seed(3)
    assert isinstance(model.config, MambaConfig)
    start = MambaReranker(model.config).state_dict()
    moved = [
        name for name, value in model.reranker.state_dict().items() if not value.equal(start[name])
    ]
    assert len(moved) > 0.9 * len(start)
