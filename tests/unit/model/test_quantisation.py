"""Codes keep the direction of a vector, whatever its numbers, and stand for vectors of length 1."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.quantisation import CODE_TYPES, CodeType, encode, row_bytes
from tests.factories import decoded_codes, unit

MIN_COSINE = {"int8": 0.9998, "int4": 0.95, "binary": 0.55}
"""Of a vector of 32 or more numbers with what its code stands for. The worst of 20,000 random ones
of each of six lengths had 0.99994, 0.963 and 0.628."""
ERROR = {"int8": 0.0001, "int4": 0.01, "binary": 0.37}
"""The squared error of a vector of length 1 in the mean; by theory 0.0095 and 0.363 before lengths
are made equal."""


@given(st.integers(1, 300), st.integers(1, 5), st.sampled_from(CODE_TYPES), st.integers(0, 2**31))
def test_a_code_has_the_said_size_and_stands_for_length_1(
    dim: int, rows: int, code_type: CodeType, seed: int
) -> None:
    vectors = unit(np.random.default_rng(seed), rows, dim)
    codes = encode(vectors, code_type)
    assert codes.shape == (rows, row_bytes(dim, code_type))
    assert codes.dtype == np.uint8
    decoded = decoded_codes(codes, dim, code_type)
    assert decoded.shape == vectors.shape
    assert decoded.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(decoded, axis=1), 1, atol=1e-5)
    if dim >= 32:
        assert ((decoded * vectors).sum(1) > MIN_COSINE[code_type]).all()


@pytest.mark.parametrize("code_type", CODE_TYPES)
@pytest.mark.parametrize("dim", [64, 100, 128, 472])
def test_the_error_is_what_theory_says(dim: int, code_type: CodeType) -> None:
    vectors = unit(np.random.default_rng(0), 500, dim)
    decoded = decoded_codes(encode(vectors, code_type), dim, code_type)
    # Of what is along the code, as it would be without lengths made equal.
    along = (decoded * vectors).sum(1)
    assert (1 - along**2).mean() < 1.03 * ERROR[code_type]


@pytest.mark.parametrize(("code_type", "least"), [("int4", 0.97), ("binary", 0.7)])
@pytest.mark.parametrize("dim", [64, 100, 128, 509])
def test_few_large_numbers_are_no_worse(dim: int, code_type: CodeType, least: float) -> None:
    """Without a rotation a vector of one number would leave 15 of 16 levels, or all signs, to
    chance."""
    single = np.eye(dim, dtype=np.float32)
    equal = np.full((1, dim), dim**-0.5, np.float32)
    falling = unit(np.random.default_rng(0), 100, dim) * 0.9 ** np.arange(dim)
    for vectors in (single, equal, falling / np.linalg.norm(falling, axis=1, keepdims=True)):
        decoded = decoded_codes(encode(vectors, code_type), dim, code_type)
        assert (decoded * vectors).sum(1).mean() > least


@pytest.mark.parametrize("code_type", CODE_TYPES)
def test_a_code_depends_on_the_direction_of_its_vector_alone(code_type: CodeType) -> None:
    vectors = unit(np.random.default_rng(0), 7, 40)
    codes = encode(vectors, code_type)
    np.testing.assert_array_equal(encode(4 * vectors, code_type), codes)
    for vector, code in zip(vectors, codes, strict=True):
        np.testing.assert_array_equal(encode(vector[None], code_type)[0], code)
    np.testing.assert_allclose(
        decoded_codes(codes, 40, code_type)[2:3],
        decoded_codes(codes[2:3], 40, code_type),
        atol=1e-6,
    )


def test_codes_mean_for_ever_what_they_meant() -> None:
    with np.load(Path(__file__).parents[2] / "data" / "records" / "decoded.npz") as arrays:
        codes = arrays["codes"]
        kinds: list[tuple[CodeType, int]] = [("int8", 50), ("int4", 100), ("binary", 100)]
        for code_type, dim in kinds:
            decoded = decoded_codes(codes[:, : row_bytes(dim, code_type)], dim, code_type)
            np.testing.assert_allclose(decoded, arrays[f"{code_type}_of_{dim}"], atol=1e-6)


@pytest.mark.parametrize("code_type", CODE_TYPES)
def test_zeros_have_a_code(code_type: CodeType) -> None:
    decoded = decoded_codes(encode(np.zeros((2, 9)), code_type), 9, code_type)
    assert np.isfinite(decoded).all()


def test_cosines_to_a_query_are_off_as_little_as_its_bits_allow() -> None:
    rng = np.random.default_rng(0)
    query, vectors = unit(rng, 1, 128)[0], unit(rng, 2000, 128)
    spreads = [
        float((decoded_codes(encode(vectors, kind), 128, kind) @ query - vectors @ query).std())
        for kind in CODE_TYPES
    ]
    assert spreads[0] < 0.001
    assert spreads[1] < 0.01
    assert spreads[2] < 0.06
