from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from model.descriptor_file import DescriptorFileError
from model.descriptors import DescriptorSizes
from model.formats.format_error import FormatError
from model.formats.published_images import PublishedImages
from tests.factories import GLOBAL_DIM, LOCAL_DIM, SIZES, tiny_config
from tests.minibench import made_up

CONFIG = tiny_config()
MOST = CONFIG.descriptors_per_image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made_up(np.random.default_rng(0), [0, 0, 1], CONFIG).write(tmp_path, "dinov2_query")
    return tmp_path


def test_an_image_has_the_locals_that_the_checkpoint_takes_and_its_global(folder: Path) -> None:
    images = made_up(np.random.default_rng(0), [0, 0, 1], CONFIG)
    paths = folder / "dinov2_query_local.hdf5", folder / "dinov2_query_global.pt"
    with PublishedImages(*paths, None, MOST) as described_images:
        assert len(described_images) == 3
        expected = images.described(1, MOST)
        np.testing.assert_allclose(described_images[1].locals, expected.locals, rtol=1e-6)
        np.testing.assert_array_equal(described_images[1].scales, expected.scales)
        assert described_images[1].global_ is not None
        assert expected.global_ is not None
        np.testing.assert_allclose(described_images[1].global_, expected.global_, rtol=1e-6)
    with PublishedImages(paths[0], None, None, MOST) as described_images:
        assert described_images[1].global_ is None


def test_sizes_that_do_not_fit_the_checkpoint_are_said(folder: Path) -> None:
    paths = folder / "dinov2_query_local.hdf5", folder / "dinov2_query_global.pt"
    with PublishedImages(*paths, SIZES, MOST) as described_images:
        assert described_images[0].sizes == SIZES
    with pytest.raises(FormatError, match=r"local descriptors of 8 .* but 24 are required"):
        PublishedImages(*paths, DescriptorSizes(24, GLOBAL_DIM), MOST)
    with pytest.raises(FormatError, match=r"global descriptors of 12 .* but 16 are required"):
        PublishedImages(*paths, DescriptorSizes(LOCAL_DIM, 16), MOST)


def test_an_image_that_cannot_be_scored_is_named_when_it_is_read(folder: Path) -> None:
    path = folder / "dinov2_query_local.hdf5"
    with h5py.File(path, "r+") as file:
        file["features"][1, 0, 7] = np.nan
    with PublishedImages(path, folder / "dinov2_query_global.pt", None, MOST) as described_images:
        assert described_images[0].count == MOST
        with pytest.raises(DescriptorFileError, match=r"dinov2_query_local\.hdf5: image '1'.*NaN"):
            described_images[1]
