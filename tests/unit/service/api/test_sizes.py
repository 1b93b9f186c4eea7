"""Which lengths of descriptors go together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.descriptors import DescriptorSizes
from service.api.sizes import MAX_DIM, MIN_DIM, Misfit, beyond_limits, joined, misfit

SIZES = st.builds(DescriptorSizes, st.integers(1, 3), st.none() | st.integers(1, 3))


def test_both_lengths_are_told_and_the_part() -> None:
    expected = DescriptorSizes(8, 12)
    assert misfit(DescriptorSizes(9, 12), expected) == Misfit("descriptors", 8, 9)
    assert misfit(DescriptorSizes(8, 13), expected) == Misfit("global", 12, 13)
    assert misfit(DescriptorSizes(8, None), expected) is None


@given(SIZES, SIZES)
def test_fitting_goes_both_ways(one: DescriptorSizes, other: DescriptorSizes) -> None:
    assert (misfit(one, other) is None) == (misfit(other, one) is None)


@given(SIZES, SIZES, SIZES)
def test_what_fits_two_together_fits_each(
    one: DescriptorSizes, other: DescriptorSizes, third: DescriptorSizes
) -> None:
    if misfit(one, other) is None:
        both = misfit(third, joined(one, other)) is None
        assert both == (misfit(third, one) is None and misfit(third, other) is None)


@pytest.mark.parametrize(
    ("sizes", "part"),
    [
        (DescriptorSizes(MIN_DIM, None), None),
        (DescriptorSizes(MAX_DIM, MIN_DIM), None),
        (DescriptorSizes(MIN_DIM - 1, None), "descriptors"),
        (DescriptorSizes(MAX_DIM + 1, 8), "descriptors"),
        (DescriptorSizes(8, MIN_DIM - 1), "global"),
        (DescriptorSizes(8, MAX_DIM + 1), "global"),
    ],
)
def test_lengths_have_limits(sizes: DescriptorSizes, part: str | None) -> None:
    beyond = beyond_limits(sizes)
    assert (None if beyond is None else beyond[0]) == part
