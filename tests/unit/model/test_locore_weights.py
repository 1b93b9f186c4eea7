"""A published file's sizes are read from its tensors, and it loads as it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.checkpoint import load_checkpoint
from model.config import PUBLISHED, ExtractorId, LongformerConfig
from model.config_file import CheckpointError, write_config
from model.locore_weights import Unwritten, longformer_config
from model.longformer import LongformerReranker
from tests.reference import CASES, reference

EXTRACTOR = ExtractorId(name="made-up", version="1")
CPU = torch.device("cpu")
LAYERS = "language_model.longformer.encoder.layer"


@pytest.mark.parametrize("case", CASES)
def test_the_config_is_that_of_the_published_code(case: str) -> None:
    locore = reference(case)
    unwritten = Unwritten(
        name=case,
        extractor=EXTRACTOR,
        with_global=case == "with_global",
        descriptors_per_image=locore.config.descriptors_per_image,
        attention_heads=4,
        attention_window=32,
    )
    config = longformer_config(locore.weights, unwritten)
    assert config.model_copy(update={"rerank": locore.config.rerank}) == locore.config


def test_small_is_base_with_fewer_layers(tmp_path: Path) -> None:
    """LOCORE-base's own sizes, on the meta device: 12 layers of 768, no projections."""
    base = LongformerConfig(name="base", extractor=EXTRACTOR, descriptor_dim=768, global_dim=768)
    with torch.device("meta"):
        shapes = {k: t.shape for k, t in LongformerReranker(base).state_dict().items()}
    assert sum(s.numel() for s in shapes.values()) > 100_000_000
    shapes_left = {
        k: s for k, s in shapes.items() if not any(f".layer.{n}." in k for n in range(6, 12))
    }
    path = tmp_path / "locore_small.safetensors"
    save_file(
        {name: torch.zeros(1).expand(s).half().contiguous() for name, s in shapes_left.items()},
        path,
    )
    config = longformer_config(path, Unwritten("small", EXTRACTOR))
    assert (config.depth, config.attention_heads, config.slots) == (6, 12, 50)
    assert (config.longest_window, config.rerank.window, config.rerank.stride) == (101, 100, 50)
    expected = base.model_copy(update={"name": "small", "depth": 6, "rerank": config.rerank})
    assert config == expected
    alone = longformer_config(path, Unwritten("alone", EXTRACTOR, with_global=False))
    assert (alone.global_dim, alone.descriptors_per_image, alone.slots) == (0, 49, 50)


def test_what_is_no_published_checkpoint_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with pytest.raises(CheckpointError, match=r"x\.safetensors: no such file"):
        longformer_config(path, Unwritten("x", EXTRACTOR))
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match="it has no language_model"):
        longformer_config(path, Unwritten("x", EXTRACTOR))
    path.write_bytes(b"text")
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        longformer_config(path, Unwritten("x", EXTRACTOR))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"language_model.longformer.embeddings.position_embeddings.weight": (9,)}, "is no matrix"),
        (
            {"language_model.longformer.encoder.layer.0.intermediate.dense.weight": (2,)},
            "no matrix",
        ),
        ({"local_to_lm.weight": (3,)}, "is no matrix"),
        ({"scale_encoder.weight": ()}, "is no matrix"),
        ({"local_to_lm.0.weight": (3, 3)}, "bottleneck"),
        ({f"{LAYERS}.40.x": (1,)}, "layer 40, but only 3 layers"),
    ],
)
def test_odd_tensors_are_named(
    changes: dict[str, tuple[int, ...]], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "odd.safetensors"
    tensors = load_file(reference("local_only").weights)
    save_file(tensors | {name: torch.zeros(shape) for name, shape in changes.items()}, path)
    with pytest.raises(CheckpointError, match=message):
        longformer_config(path, Unwritten("odd", EXTRACTOR))


def test_whole_numbers_are_no_weights(tmp_path: Path) -> None:
    locore = reference("local_only")
    path = tmp_path / "x.safetensors"
    save_file({name: t.to(torch.int32) for name, t in load_file(locore.weights).items()}, path)
    write_config(locore.config, path)
    with pytest.raises(CheckpointError, match=r"is of torch\.int32"):
        load_checkpoint(path, CPU)


def test_a_published_version_goes_with_every_other() -> None:
    first, second = (ExtractorId(name="dinov2", version=version) for version in "ab")
    published = ExtractorId(name="dinov2", version=PUBLISHED)
    assert first.fits(first)
    assert not first.fits(second)
    assert first.fits(published)
    assert published.fits(second)
    assert not published.fits(ExtractorId(name="other", version=PUBLISHED))


def test_a_tensor_too_few_is_named(tmp_path: Path) -> None:
    locore = reference("local_only")
    path = tmp_path / "x.safetensors"
    tensors = load_file(locore.weights)
    del tensors["language_model.classifier.bias"]
    save_file(tensors, path)
    write_config(locore.config, path)
    with pytest.raises(CheckpointError, match=r"classifier\.bias is absent in the file"):
        load_checkpoint(path, CPU)


_LOAD = """
import sys
from pathlib import Path
import torch
from model.checkpoint import load_checkpoint
import model.longformer

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))

before = peak()
model = load_checkpoint(Path(sys.argv[1]), torch.device("cpu"))
assert sum(float(p.sum()) for p in model.reranker.parameters()) > 0
print(peak() - before)
"""


@pytest.mark.slow
def test_loading_takes_the_memory_of_the_weights_once(tmp_path: Path) -> None:
    """110 M parameters, LOCORE-base: 440 MB, and less than half as much again in the peak."""
    base = LongformerConfig(name="base", extractor=EXTRACTOR, descriptor_dim=768, global_dim=768)
    with torch.device("meta"):
        shapes = {k: t.shape for k, t in LongformerReranker(base).state_dict().items()}
    path = tmp_path / "base.safetensors"
    save_file({name: torch.ones(shape) for name, shape in shapes.items()}, path)
    write_config(base, path)
    process = subprocess.run(
        [sys.executable, "-c", _LOAD, path], check=True, capture_output=True, text=True
    )
    weights = path.stat().st_size / 1024
    assert 0.5 * weights < int(process.stdout) < 1.5 * weights
