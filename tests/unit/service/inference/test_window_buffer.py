"""Windows that go through shared memory arrive as they were."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model.descriptors import DescriptorSizes, ImageDescriptors
from model.windows import Window
from service.inference.window_buffer import WindowBuffer
from tests.factories import image, tiny_config

CONFIG = tiny_config()


@pytest.fixture
def ends() -> Iterator[tuple[WindowBuffer, WindowBuffer]]:
    """The writer's and the reader's."""
    writer = WindowBuffer(os.memfd_create("test"))
    reader = WindowBuffer(os.dup(writer.descriptor))
    yield writer, reader
    writer.close()
    reader.close()


@st.composite
def images(draw: st.DrawFn, sizes: DescriptorSizes) -> ImageDescriptors:
    """Of one row or more, with or without a global and padding, of either number type."""
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    rows = draw(st.integers(1, 9))
    one = image(rng, CONFIG, rows, with_global=draw(st.booleans()), sizes=sizes)
    locals_ = one.locals.astype(draw(st.sampled_from([np.float16, np.float32])))
    padding = rng.random(rows) < 0.3 if draw(st.booleans()) else None
    return ImageDescriptors(locals_, one.scales, one.global_, padding)


@st.composite
def windows(draw: st.DrawFn) -> Window:
    sizes = DescriptorSizes(draw(st.integers(2, 9)), draw(st.integers(2, 9)))
    gallery = draw(st.lists(images(sizes), min_size=1, max_size=5))
    return Window(draw(images(sizes)), gallery)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(st.lists(windows(), min_size=1, max_size=3), min_size=1, max_size=3))
def test_what_one_writes_the_other_reads(
    ends: tuple[WindowBuffer, WindowBuffer], batches: list[list[Window]]
) -> None:
    writer, reader = ends
    for batch in batches:
        for sent, received in zip(batch, reader.read(writer.write(batch)), strict=True):
            pairs = zip(
                (sent.query, *sent.gallery), (received.query, *received.gallery), strict=True
            )
            for one, other in pairs:
                assert other.locals.dtype == np.float32
                np.testing.assert_array_equal(one.locals, other.locals)
                np.testing.assert_array_equal(one.scales, other.scales)
                np.testing.assert_equal(one.global_, other.global_)
                np.testing.assert_equal(one.padding, other.padding)


@pytest.mark.parametrize("sizes", [DescriptorSizes(4, 3), DescriptorSizes(5, 2)])
def test_images_of_several_sizes_are_no_window(
    ends: tuple[WindowBuffer, WindowBuffer], sizes: DescriptorSizes
) -> None:
    rng = np.random.default_rng(0)
    one, other = (image(rng, CONFIG, sizes=size) for size in (DescriptorSizes(4, 2), sizes))
    with pytest.raises(ValueError, match=r"size|dimension|shape"):
        ends[0].write([Window(one, [other])])
