"""What is sent."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from locore_client import (
    InvalidDescriptorsError,
    InvalidRequestError,
    image_from_arrays,
    packed_image,
)
from locore_client.bodies import to_json
from locore_client.packing import PackedArray, unpack


def test_arrays_make_an_image() -> None:
    rows = np.arange(6.0).reshape(3, 2)
    packed = packed_image(rows)
    assert packed == packed_image(image_from_arrays(rows))
    assert unpack(PackedArray.model_validate(packed["descriptors"])).tolist() == rows.tolist()
    assert packed["scales"] == [0, 0, 0]
    image = image_from_arrays(rows.tolist(), [2, 0, 1], np.ones(4, np.float16))
    assert image.scales.tolist() == [2, 0, 1]
    assert packed_image(image)["global"]["dtype"] == "float16"


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        (([1.0, 2.0],), "locals_: shape"),
        ((np.empty((0, 4)),), "locals_: shape"),
        (([[1.0], [1.0, 2.0]],), "locals_: an array of numbers"),
        (([["a"]],), "locals_: an array of numbers"),
        ((np.ones((2, 3)), [0]), "scales: 1 for 2 rows"),
        ((np.ones((1, 3)), [0.5]), "scales: whole numbers"),
        ((np.ones((1, 3)), [256]), "scales: whole numbers"),
        ((np.ones((1, 3)), [np.nan]), "scales: whole numbers"),
        ((np.ones((1, 3)), None, np.ones((2, 2))), "global_: shape"),
    ],
)
def test_arrays_of_other_shapes_are_refused(arrays: tuple[Any, ...], said: str) -> None:
    with pytest.raises(InvalidDescriptorsError, match=said):
        image_from_arrays(*arrays)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, b"bytes"])
def test_what_json_has_no_form_for_is_refused(value: object) -> None:
    with pytest.raises(InvalidRequestError):
        to_json({"metadata": value})
