from __future__ import annotations

import collections
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from model.formats.format_error import FormatError
from model.formats.pickles import load_pickle

REVISITOP = Path(__file__).parents[3] / "data" / "revisitop"


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_and_plain_data_come_back(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "x.pkl"
    plain = {"a": [1, 2.5, None, True, b"bytes"], "b": ("é", {1, 2}, np.int64(7), np.float32(0.5))}
    path.write_bytes(pickle.dumps(plain, protocol))
    assert load_pickle(path) == plain
    for array in (np.arange(6.0).reshape(2, 3), np.asfortranarray(np.eye(2, 3)), np.array(["x"])):
        path.write_bytes(pickle.dumps(array, protocol))
        loaded = load_pickle(path)
        assert isinstance(loaded, np.ndarray)
        assert loaded.dtype == array.dtype
        assert (loaded == array).all()
    ordered = collections.OrderedDict(b=torch.arange(6.0).reshape(2, 3))
    path.write_bytes(pickle.dumps(ordered, protocol))
    loaded = load_pickle(path)
    assert isinstance(loaded, collections.OrderedDict)
    assert loaded["b"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_arrays_of_numpy_1_come_back(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    of_numpy_2 = pickle.dumps(np.arange(3.0), protocol=2)
    assert b"numpy._core.multiarray" in of_numpy_2
    path.write_bytes(of_numpy_2.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    loaded = load_pickle(path)
    assert isinstance(loaded, np.ndarray)
    assert loaded.tolist() == [0, 1, 2]


def test_a_pickle_of_python_2_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    # As Python 2 wrote it: byte strings, and an array whose contents are one.
    path.write_bytes(
        b"\x80\x02}(U\x03gndcnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b"
        b"\x87R(K\x01K\x02\x85cnumpy\ndtype\nU\x02i2K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tb\x89U\x04\x01\x00\xff\x00tbU\x04nameU\x02\xe9xu."
    )
    loaded = load_pickle(path)
    assert isinstance(loaded, dict)
    assert loaded["gnd"].tolist() == [1, 255]
    assert loaded["name"] == "éx"


@pytest.mark.parametrize("name", ["roxford5k", "rparis6k"])
def test_the_published_ground_truth_loads(name: str) -> None:
    loaded = load_pickle(REVISITOP / f"gnd_{name}.pkl")
    assert isinstance(loaded, dict)
    assert len(loaded["gnd"]) == len(loaded["qimlist"]) == 70


def test_a_file_of_torch_save_comes_back(tmp_path: Path) -> None:
    torch.save({"x": torch.ones(2, 3)}, tmp_path / "x.pt")
    loaded = load_pickle(tmp_path / "x.pt")
    assert isinstance(loaded, dict)
    assert loaded["x"].shape == (2, 3)


class Calls:
    """Pickles as a call of any function."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (Calls(os.system, "touch {}"), "system"),
        (Calls(eval, "open('{}', 'w')"), "eval"),
        (Calls(np.ndarray, (2,)), "not a readable pickle"),
        (Path("x"), "pathlib"),
        (np.random.default_rng(0), "numpy.random"),
        (Calls(torch.load, "x"), "torch"),
    ],
)
def test_what_is_no_data_is_refused_before_it_runs(
    tmp_path: Path, value: object, named: str
) -> None:
    touched, path = tmp_path / "touched", tmp_path / "x.pkl"
    for protocol in (2, 5):
        body = pickle.dumps({"gnd": [value]}, protocol)
        path.write_bytes(body)
        with pytest.raises(FormatError) as caught:
            load_pickle(path)
        assert named in str(caught.value)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not touched.exists()


def test_a_storage_that_runs_something_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    inner = pickle.dumps(Calls(os.system, f"touch {tmp_path / 'touched'}"))
    body = pickle.dumps(Calls(torch.storage._load_from_bytes, inner))
    path.write_bytes(body)
    with pytest.raises(FormatError, match="not a readable pickle"):
        load_pickle(path)
    torch.save({"x": Path("y")}, path)
    with pytest.raises(FormatError, match="not a readable pickle"):
        load_pickle(path)
    assert not (tmp_path / "touched").exists()


def test_damaged_and_missing_files_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    for protocol in (2, 5):
        content = pickle.dumps({"a": np.arange(9.0), "t": torch.ones(3)}, protocol)
        for length in {*range(0, len(content) - 1, 7), len(content) - 1}:
            path.write_bytes(content[:length])
            with pytest.raises(FormatError) as caught:
                load_pickle(path)
            assert "\n" not in str(caught.value)
    torch.save(torch.ones(9), path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(FormatError, match="not a readable pickle"):
        load_pickle(path)
    with pytest.raises(FormatError, match=r"none\.pkl: no such file"):
        load_pickle(tmp_path / "none.pkl")
    with pytest.raises(FormatError, match="cannot be read"):
        load_pickle(tmp_path)
