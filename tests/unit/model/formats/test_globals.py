from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from model.formats.format_error import FormatError
from model.formats.globals import GlobalFile, open_globals

ROWS = np.arange(1, 13, dtype=np.float32).reshape(3, 4)


pytestmark = pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """As the published extraction writes it."""
    path = tmp_path / "dinov2_global.pt"
    storage = torch.FloatStorage.from_file(str(path), True, ROWS.size)
    torch.FloatTensor(storage).reshape(ROWS.shape)[:] = torch.from_numpy(ROWS)
    return path


def test_rows_are_read_where_they_are_needed(path: Path) -> None:
    memory_map = open_globals(path, rows=3)
    np.testing.assert_array_equal(memory_map, ROWS)
    assert not memory_map.flags.writeable
    images = GlobalFile(path, rows=3)
    assert (len(images), images.dim) == (3, 4)
    np.testing.assert_allclose(images[1], ROWS[1] / np.linalg.norm(ROWS[1]), rtol=1e-6)


def test_a_file_of_another_size_or_none_is_said(path: Path) -> None:
    with pytest.raises(FormatError, match=r"48 bytes are no 5 rows of float32"):
        open_globals(path, rows=5)
    with pytest.raises(FormatError, match="no 0 rows"):
        open_globals(path, rows=0)
    with pytest.raises(FormatError, match="no such file"):
        open_globals(path.with_name("none.pt"), rows=3)
    path.write_bytes(b"")
    with pytest.raises(FormatError, match="0 bytes"):
        open_globals(path, rows=3)


@pytest.mark.parametrize(("value", "message"), [(np.nan, "NaN or infinity"), (0, "all zeros")])
def test_a_row_that_cannot_be_scored_is_named_when_it_is_used(
    path: Path, value: float, message: str
) -> None:
    rows = np.memmap(path, np.float32, "r+", shape=ROWS.shape)
    rows[2] = value
    rows.flush()
    images = GlobalFile(path, rows=3)
    assert images[1].shape == (4,)
    with pytest.raises(FormatError, match=rf"dinov2_global\.pt: row 2: .*{message}"):
        images[2]
