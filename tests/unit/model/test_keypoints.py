"""Where an image's descriptors lie in it, from each layout of a descriptor file."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from model.descriptor_file import DescriptorFileError, DescriptorReader

ROWS = np.random.default_rng(0).random((2, 3, 4), np.float32)
LEADING = np.random.default_rng(1).random((2, 3, 5), np.float32)
LEADING[..., 3] = 0


def test_both_layouts_tell_x_and_y(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "joined.h5", "w") as file:
        file["features"] = np.concatenate((LEADING, ROWS), axis=2)
    with h5py.File(tmp_path / "apart.h5", "w") as file:
        file["descriptor"], file["metadata"] = ROWS, LEADING
    for name in ("joined", "apart"):
        with DescriptorReader(tmp_path / f"{name}.h5") as reader:
            np.testing.assert_array_equal(reader.keypoints(1), LEADING[1, :, :2])


def test_bare_rows_have_none(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "bare.h5", "w") as file:
        file["features"] = ROWS
    with (
        DescriptorReader(tmp_path / "bare.h5", descriptor_dim=4) as reader,
        pytest.raises(DescriptorFileError, match=r"bare\.h5: has no keypoints"),
    ):
        reader.keypoints(0)
