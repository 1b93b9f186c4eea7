"""The model's process: scores as the model does here, and is replaced when it dies."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from model.checkpoint import LoadedModel
from model.config_file import CheckpointError
from model.windows import Window
from service.inference import model_process
from service.inference.model_process import (
    ModelProcess,
    ModelProcessError,
    UnfitModelError,
)
from service.watch.metrics import MODEL_MEMORY
from tests import processes
from tests.factories import image, load_tiny, window
from tests.processes import gone


def children() -> list[int]:
    return processes.children(os.getpid(), processes.MODEL)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_tiny(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelProcess]:
    folder = tmp_path_factory.mktemp("process")
    load_tiny(folder)
    with ModelProcess(folder / "tiny.safetensors", "cpu", "float32") as one:
        yield one


def batch(model: LoadedModel, seed: int = 0) -> list[Window]:
    rng = np.random.default_rng(seed)
    return [window(rng, model.config, images) for images in (1, 7, 3)]


def assert_same_scores(process: ModelProcess, model: LoadedModel, seed: int = 0) -> None:
    windows = batch(model, seed)
    for one, other in zip(process.score(windows), model.score(windows), strict=True):
        np.testing.assert_array_equal(one, other)


def test_scores_and_description_are_the_models(process: ModelProcess, model: LoadedModel) -> None:
    for seed in range(3):
        assert_same_scores(process, model, seed)
    assert process.info == model.info
    (memory,) = MODEL_MEMORY.collect()
    assert memory.samples[0].value > 100 << 20
    assert len(children()) == 1


def test_a_pass_that_fails_leaves_the_process_running(
    process: ModelProcess, model: LoadedModel
) -> None:
    (before,) = children()
    with pytest.raises(ModelProcessError, match="ValueError"):
        process.score([])
    assert_same_scores(process, model)
    assert children() == [before]


def test_a_process_that_died_is_replaced(process: ModelProcess, model: LoadedModel) -> None:
    (before,) = children()
    os.kill(before, signal.SIGKILL)
    assert gone(before)
    with pytest.raises(ModelProcessError):
        process.score(batch(model))
    assert_same_scores(process, model)
    assert children() != [before]


def test_a_pass_that_does_not_come_back_ends_its_process(
    process: ModelProcess, model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_same_scores(process, model)
    (child,) = children()
    monkeypatch.setattr(model_process, "STUCK_SECONDS", 0.1)
    os.kill(child, signal.SIGSTOP)
    with pytest.raises(ModelProcessError, match="no answer"):
        process.score(batch(model))
    monkeypatch.undo()
    assert gone(child)
    assert_same_scores(process, model)


def test_signals_to_the_service_leave_it_running(process: ModelProcess, model: LoadedModel) -> None:
    assert_same_scores(process, model)
    (child,) = children()
    for sig in (signal.SIGTERM, signal.SIGINT):
        os.kill(child, sig)
    assert_same_scores(process, model)
    assert children() == [child]


def test_closing_it_ends_a_pass(model: LoadedModel, tmp_path: Path) -> None:
    load_tiny(tmp_path)
    one = ModelProcess(tmp_path / "tiny.safetensors", "cpu", "float32")
    (child,) = [c for c in children() if str(tmp_path) in processes.command(c)]
    os.kill(child, signal.SIGSTOP)
    threading.Timer(0.2, one.close).start()
    with pytest.raises(ModelProcessError):
        one.score(batch(model))
    assert gone(child)
    with pytest.raises(ModelProcessError, match="shutting down"):
        one.score(batch(model))


def test_a_model_that_cannot_be_loaded_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "tiny.safetensors"
    with pytest.raises(CheckpointError, match=r"tiny\.json: no such file"):
        ModelProcess(path, "cpu", "float32")
    load_tiny(tmp_path)
    with pytest.raises(UnfitModelError, match="no device cuda:63 on this machine"):
        ModelProcess(path, "cuda:63", "float32")
    path.write_bytes(b"damaged")
    with pytest.raises(UnfitModelError, match=r"tiny\.safetensors: not a readable"):
        ModelProcess(path, "cpu", "float32")
    assert not [c for c in children() if str(tmp_path) in processes.command(c)]


def test_an_image_of_another_size_is_an_error_of_its_batch(
    process: ModelProcess, model: LoadedModel
) -> None:
    rng = np.random.default_rng(0)
    one = image(rng, model.config)
    other = image(rng, model.config, sizes=type(one.sizes)(5, 12))
    with pytest.raises(ValueError, match=r"."):
        process.score([Window(one, [other])])
    assert_same_scores(process, model)
