"""The scan does what the recurrence says, however it is cut into chunks."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.scan import chunked_scan


def recurrence(x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, reverse: bool) -> Tensor:
    """Step by step in float64: S_t = exp(dt_t a) S_{t-1} + dt_t x_t b_t^T, y_t = S_t c_t."""
    x, dt, a, b, c = (t.double() for t in (x, dt, a, b, c))
    state = torch.zeros(*x.shape[:1], *x.shape[2:], b.shape[-1], dtype=torch.float64)
    y = torch.empty_like(x)
    places = range(x.shape[1])
    for t in reversed(places) if reverse else places:
        mask = torch.exp(dt[:, t] * a)[..., None, None] * state
        written = (dt[:, t, :, None] * x[:, t]).unsqueeze(-1) * b[:, t, None, None, :]
        state = mask + written
        y[:, t] = (state * c[:, t, None, None, :]).sum(-1)
    return y


def both_ways(
    x: Tensor, forward: Tensor, backward: Tensor, a: Tensor, b: Tensor, c: Tensor
) -> Tensor:
    return recurrence(x, forward, a, b, c, False) + recurrence(x, backward, a, b, c, True)


def inputs(length: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Two sequences of three heads: slow, middling and fast to forget."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, length, 3, 4, generator=generator)
    steps = torch.rand(2, 2, length, 3, generator=generator) * torch.tensor([0.01, 0.5, 3.0])
    a = torch.tensor([-1.0, -4.0, -16.0])
    b = torch.randn(2, length, 5, generator=generator)
    c = torch.randn(2, length, 5, generator=generator)
    return x, steps[0], steps[1], a, b, c


@settings(max_examples=60)
@given(length=st.integers(1, 300), chunk=st.integers(1, 64), seed=st.integers(0, 2**31))
def test_equals_the_recurrence_in_float64(length: int, chunk: int, seed: int) -> None:
    arguments = inputs(length, seed)
    expected = both_ways(*arguments)
    y = chunked_scan(*arguments, chunk=chunk)
    assert (y - expected).norm() <= 1e-6 * expected.norm()


def test_stays_exact_over_a_whole_window() -> None:
    arguments = inputs(5050, seed=1)
    expected = both_ways(*arguments)
    assert (chunked_scan(*arguments) - expected).norm() <= 1e-6 * expected.norm()


def test_a_step_of_zero_passes_the_state_through() -> None:
    x, forward, backward, a, b, c = inputs(40, seed=2)
    mask = torch.arange(40) % 3 != 1
    gap = mask[:, None]
    with_gaps = chunked_scan(x, forward * gap, backward * gap, a, b, c, chunk=7)
    x, forward, backward, b, c = (t[:, mask] for t in (x, forward, backward, b, c))
    without = chunked_scan(x, forward, backward, a, b, c, chunk=7)
    torch.testing.assert_close(with_gaps[:, mask], without, rtol=1e-4, atol=1e-5)


def test_has_the_gradient_of_the_recurrence() -> None:
    tensors = [t.double().requires_grad_() for t in inputs(9, seed=3)]
    shape = tensors[0].shape
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    expected = torch.autograd.grad((both_ways(*tensors) * weight).sum(), tensors)
    gradients = torch.autograd.grad((chunked_scan(*tensors, chunk=4) * weight).sum(), tensors)
    for one, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_half_precision_inputs_are_scanned_in_single() -> None:
    x, forward, backward, a, b, c = inputs(50, seed=5)
    x, b, c = (t.bfloat16() for t in (x, b, c))
    y = chunked_scan(x, forward, backward, a, b, c)
    assert y.dtype == torch.float32
    expected = both_ways(x, forward, backward, a, b, c)
    assert (y - expected).norm() <= 1e-6 * expected.norm()
