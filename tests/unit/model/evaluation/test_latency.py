"""The contenders of a timing run the same list, each as often."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.evaluation.latency import MAXSIM, batch_speeds, profiled, speeds
from tests.factories import load_tiny


def test_every_contender_is_timed_in_every_counted_round(tmp_path: Path) -> None:
    model = load_tiny(tmp_path)
    rounds_seen: list[int] = []

    def progress(rounds: range) -> range:
        rounds_seen.extend(rounds)
        return rounds

    lists = speeds(model, 3, 2, progress=progress)  # type: ignore[arg-type]
    assert len(rounds_seen) == 4
    assert {model.config.name, "ELViS", "pairwise transformer", MAXSIM} < set(lists)
    assert all(len(of.seconds) == 2 and min(of.seconds) > 0 for of in lists.values())
    assert lists[model.config.name].weights == sum(p.numel() for p in model.reranker.parameters())
    assert lists[MAXSIM].weights == 0


def test_a_pass_is_timed_by_its_windows(tmp_path: Path) -> None:
    batches = batch_speeds(load_tiny(tmp_path), 3, (1, 2), 3)
    assert list(batches) == [1, 2]
    assert batches[2].median == pytest.approx(sorted(batches[2].seconds)[1])


def test_the_profile_names_operations(tmp_path: Path) -> None:
    assert "aten::" in profiled(load_tiny(tmp_path), 3, 1)
