from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from locore_client.packing import InvalidArrayError, pack
from service.api.arrays import Matrix, PackedArray, unpack


class Body(BaseModel):
    matrix: Matrix


@given(st.integers(1, 5), st.integers(1, 5), st.sampled_from(["float16", "float32"]))
def test_both_forms_mean_the_same(rows: int, columns: int, dtype: str) -> None:
    values = np.random.default_rng(rows * 10 + columns).standard_normal((rows, columns))
    values = values.astype(dtype)
    packed = Body.model_validate({"matrix": pack(values)}).matrix
    nested = Body.model_validate({"matrix": values.tolist()}).matrix
    np.testing.assert_array_equal(unpack(packed, 2), values.astype(np.float32))
    np.testing.assert_array_equal(unpack(nested, 2), values.astype(np.float32))


def packed(**changes: Any) -> dict[str, Any]:
    return {
        "dtype": "float32",
        "shape": [1, 2],
        "data": base64.b64encode(bytes(8)).decode(),
    } | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": [2, 2]}, "8 bytes of data, but the shape takes 16"),
        ({"data": "not base64!"}, "not base64"),
        ({"shape": [2]}, "2 dimensions are required"),
    ],
)
def test_what_does_not_fit_is_said(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        unpack(PackedArray.model_validate(packed(**changes)), 2)


def test_ragged_rows_are_refused() -> None:
    with pytest.raises(InvalidArrayError, match="different lengths"):
        unpack([[1.0, 2.0], [3.0]], 2)


@pytest.mark.parametrize(
    "bad", [packed(dtype="int8"), packed(extra=1), packed(shape=[0, 2]), "text", 3, [1.0]]
)
def test_what_is_no_array_is_refused_by_the_schema(bad: object) -> None:
    with pytest.raises(ValidationError):
        Body.model_validate({"matrix": bad})


def test_bytes_are_little_endian_and_row_major() -> None:
    body = pack(np.array([[1.0, 2.0], [3.0, 4.0]], np.float32).T)
    assert base64.b64decode(body["data"]) == np.array([1, 3, 2, 4], "<f4").tobytes()
