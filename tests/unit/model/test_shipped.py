"""Checkpoints by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.config import DEFAULT_CHECKPOINT
from model.config_file import read_config
from model.shipped import checkpoint_file, shipped_names


def test_a_bare_name_is_that_of_a_shipped_checkpoint() -> None:
    assert shipped_names() == ["relations", "small"]
    assert checkpoint_file(Path("relations")) == DEFAULT_CHECKPOINT
    for name in shipped_names():
        path = checkpoint_file(Path(name))
        assert path.stat().st_size < 10_000_000
        assert read_config(path).name == name


@pytest.mark.parametrize("path", ["small.safetensors", "folder/small", "/small", "small.pt"])
def test_a_path_stays_what_it_is(path: str) -> None:
    assert checkpoint_file(Path(path)) == Path(path)


@pytest.mark.parametrize("name", ["smal", "Small", ".", ".."])
def test_an_unknown_name_is_refused_with_those_that_there_are(name: str) -> None:
    with pytest.raises(ValueError, match=r"not a shipped checkpoint \(relations, small\)"):
        checkpoint_file(Path(name))
