from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.formats.format_error import FormatError
from model.formats.ground_truth import read_ground_truth

REVISITOP = Path(__file__).parents[3] / "data" / "revisitop"


def written(tmp_path: Path, value: object) -> Path:
    path = tmp_path / "gnd_x.pkl"
    path.write_bytes(pickle.dumps(value, protocol=2))
    return path


def test_the_published_ground_truth_is_read() -> None:
    path = REVISITOP / "gnd_roxford5k.pkl"
    plain = pickle.loads(path.read_bytes())  # noqa: S301
    truth = read_ground_truth(path, gallery=4993)
    assert truth.gallery_names == plain["imlist"]
    assert truth.query_names == plain["qimlist"]
    for query, of in zip(truth.queries, plain["gnd"], strict=True):
        assert query.graded
        assert query.easy.tolist() == of["easy"]
        assert query.hard.tolist() == of["hard"]
        assert query.junk.tolist() == of["junk"]
        assert query.box == tuple(of["bbx"])
    with pytest.raises(FormatError, match=r"has index \d+, but the gallery has 4000 images"):
        read_ground_truth(path, gallery=4000)


def test_positives_without_difficulty_are_read(tmp_path: Path) -> None:
    path = written(tmp_path, {"gnd": [{"ok": [3, 1]}, {"ok": np.empty(0), "junk": np.array([2])}]})
    truth = read_ground_truth(path, gallery=4)
    assert [of.easy.tolist() for of in truth.queries] == [[3, 1], []]
    assert [of.junk.tolist() for of in truth.queries] == [[], [2]]
    assert not truth.queries[0].graded
    assert truth.query_names is None


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1], "no list `gnd`"),
        ({"imlist": []}, "no list `gnd`"),
        ({"gnd": []}, "0 queries"),
        ({"gnd": [{"ok": [1]}], "qimlist": ["a", "b"]}, "1 queries, 2 names"),
        ({"gnd": [{"easy": [1]}]}, "query 0 has neither"),
        ({"gnd": [{"ok": [1]}, {"ok": [4]}]}, "query 1: `ok` has index 4"),
        ({"gnd": [{"ok": [-1]}]}, "query 0: `ok` has index -1"),
        ({"gnd": [{"ok": [2, 1], "junk": [2]}]}, "query 0 has index 2 twice"),
        ({"gnd": [{"ok": [0.5]}]}, "query 0: `ok` is no list of whole numbers"),
        ({"gnd": [{"ok": [float("nan")]}]}, "query 0: `ok` is no list of whole numbers"),
        ({"gnd": [{"ok": ["a"]}]}, "query 0: `ok` is no list of whole numbers"),
        ({"gnd": [{"ok": [1], "bbx": [1, 2]}]}, "query 0: `bbx` is not four numbers"),
        ({"gnd": [{"ok": [1]}], "imlist": 3}, "`imlist` is no list of names"),
    ],
)
def test_what_is_no_ground_truth_is_said(tmp_path: Path, value: Any, message: str) -> None:
    path = written(tmp_path, value)
    with pytest.raises(FormatError) as caught:
        read_ground_truth(path, gallery=4)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
