"""`mamba_ssm`'s own Triton kernel does what the plain scan does: on a GPU where there is one, else
interpreted on the CPU (tests/conftest.py). Where it is not installed these tests fail.

Not in bfloat16, whose bits Triton's interpreter multiplies as if they were whole numbers."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TypeAlias

import numpy as np
import pytest
import torch
from torch import Tensor

from model.kernel import mamba_chunk_scan, mamba_ssm_scan, select_kernel, try_out
from model.random_images import random_window
from model.reranker import MambaReranker, score_windows
from model.scan import Scan, chunked_scan
from tests.factories import tiny_config, tiny_model

Combined: TypeAlias = Callable[..., Tensor]
Arguments: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
HERE = CUDA if torch.cuda.is_available() else CPU
WIDTH, STATE = 32, 16
devices: list[torch.device] = []
"""That were made the current one, on a machine that has none."""


@contextmanager
def current(device: torch.device | int | None) -> Iterator[None]:
    devices.append(torch.device("cpu" if device is None else device))
    yield
    devices.pop()


@pytest.fixture(scope="module")
def combined() -> Iterator[Combined]:
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        if HERE == CPU:
            patch.setattr("torch.cuda.device", current)
            properties = SimpleNamespace(multi_processor_count=1)
            patch.setattr("torch.cuda.get_device_properties", lambda _: properties)
            # One choice of blocks, large ones: the interpreter has nothing to tune by.
            patch.setenv("MAMBA_DETERMINISTIC", "1")
            patch.setenv("TRITON_AUTOTUNE_BLOCK_SIZE_M", "128")
            patch.setenv("TRITON_AUTOTUNE_BLOCK_SIZE_N", "64")
            warnings.filterwarnings("ignore", "Deterministic mode")
        yield mamba_chunk_scan()


@pytest.fixture
def scan(combined: Combined) -> Scan:
    return mamba_ssm_scan(combined)


def inputs(length: int, windows: int = 1, heads: int = 2) -> Arguments:
    """Of a head that remembers beyond a chunk, and of one that soon forgets."""
    generator = torch.Generator().manual_seed(length)
    x = torch.randn(windows, length, heads, WIDTH, generator=generator)
    forward, backward = torch.rand(2, windows, length, heads, generator=generator)
    b, c = torch.randn(2, windows, length, STATE, generator=generator)
    x, forward, backward, b, c = (t.to(HERE) for t in (x, forward, backward, b, c))
    return x, forward, backward, torch.tensor([-0.1, -4.0], device=HERE)[:heads], b, c


def error(y: Tensor, expected: Tensor) -> float:
    return float((y - expected).norm() / expected.norm())


@pytest.mark.parametrize(("windows", "length"), [(1, 1), (2, 37), (1, 131)])
def test_equals_the_plain_scan(scan: Scan, windows: int, length: int) -> None:
    arguments = inputs(length, windows)
    y = scan(*arguments)
    assert y.dtype == torch.float32
    assert error(y, chunked_scan(*arguments)) < 1e-5


def test_half_precision_is_summed_in_single(scan: Scan) -> None:
    x, forward, backward, a, b, c = inputs(131, heads=1)
    x, b, c = (t.half() for t in (x, b, c))
    y = scan(x, forward, backward, a, b, c)
    assert y.dtype == torch.float32
    assert not torch.equal(y, y.half().float())
    assert error(y, chunked_scan(x, forward, backward, a, b, c)) < 1e-3


def test_a_step_of_zero_passes_the_state_through(scan: Scan) -> None:
    x, forward, backward, a, b, c = inputs(131)
    mask = torch.arange(131) % 3 != 1
    gap = mask[:, None].to(HERE)
    with_gaps = scan(x, forward * gap, backward * gap, a, b, c)
    x, forward, backward, b, c = (t[:, mask] for t in (x, forward, backward, b, c))
    assert error(with_gaps[:, mask], chunked_scan(x, forward, backward, a, b, c)) < 1e-5


def test_has_the_gradients_of_the_plain_scan(scan: Scan) -> None:
    arguments = [t.requires_grad_() for t in inputs(37, heads=1)]
    weight = torch.randn(arguments[0].shape, generator=torch.Generator().manual_seed(1)).to(HERE)
    expected = torch.autograd.grad((chunked_scan(*arguments) * weight).sum(), arguments)
    gradients = torch.autograd.grad((scan(*arguments) * weight).sum(), arguments)
    for one, other in zip(gradients, expected, strict=True):
        assert error(one, other) < 1e-4


def test_one_call_gives_the_bits_of_a_call_each_way(combined: Combined, scan: Scan) -> None:
    def one_way(x: Tensor, dt: Tensor, b: Tensor, c: Tensor) -> Tensor:
        return combined(x, dt, a, b.unsqueeze(2), c.unsqueeze(2), chunk_size=128)

    x, forward, backward, a, b, c = inputs(37)
    back = one_way(*(t.flip(1) for t in (x, backward, b, c))).flip(1)
    assert torch.equal(scan(x, forward, backward, a, b, c), one_way(x, forward, b, c) + back)


def turned(t: Tensor) -> Tensor:
    """The windows of the second half, those of the backward scan, from their other end."""
    onward, back = t.chunk(2)
    return torch.cat((onward, back.flip(1)))


def exchanged(t: Tensor) -> Tensor:
    """The windows of the forward scan for those of the backward."""
    return t.roll(len(t) // 2, 0)


def in_two_groups(t: Tensor) -> Tensor:
    """Half of the state's columns for either head."""
    return t.reshape(*t.shape[:2], 2, -1)


Fault: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, ...]]
FAULTS: dict[str, Fault] = {
    "direction": lambda x, dt, a, b, c: (turned(x), turned(dt), a, turned(b), turned(c)),
    "direction of the steps": lambda x, dt, a, b, c: (x, turned(dt), a, b, c),
    "direction of B": lambda x, dt, a, b, c: (x, dt, a, turned(b), c),
    "direction of C": lambda x, dt, a, b, c: (x, dt, a, b, turned(c)),
    "steps of the other scan": lambda x, dt, a, b, c: (x, exchanged(dt), a, b, c),
    "decays of the other head": lambda x, dt, a, b, c: (x, dt, a.flip(0), b, c),
    "B for C": lambda x, dt, a, b, c: (x, dt, a, c, b),
    "groups": lambda x, dt, a, b, c: (x, dt, a, in_two_groups(b), in_two_groups(c)),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_wrong_argument_would_show(combined: Combined, name: str) -> None:
    """With the adapter at fault, the scans differ by far more than the tests above allow."""

    def faulty(*arguments: Tensor, chunk_size: int) -> Tensor:
        return combined(*FAULTS[name](*arguments), chunk_size=chunk_size)

    inputs_ = inputs(9)
    assert error(mamba_ssm_scan(faulty)(*inputs_), chunked_scan(*inputs_)) > 0.05


@pytest.mark.skipif(HERE == CUDA, reason="a stand-in for torch.cuda.device knows the device")
def test_all_is_launched_on_the_device_of_the_window(combined: Combined) -> None:
    def noting(*arguments: Tensor, chunk_size: int) -> Tensor:
        assert devices == [CPU]
        return combined(*arguments, chunk_size=chunk_size)

    mamba_ssm_scan(noting)(*inputs(1, heads=1))
    assert devices == []


def test_a_model_scores_alike_by_either_kernel(scan: Scan) -> None:
    model = tiny_model(tiny_config(depth=1))
    other = MambaReranker(model.config, scan).eval()
    other.load_state_dict(model.state_dict())
    windows = [random_window(model.config, 7)]
    (scores,) = score_windows(other.to(HERE), windows, HERE)
    (expected,) = score_windows(model, windows, CPU)
    np.testing.assert_allclose(scores, expected, atol=1e-4)


def test_single_precision_is_left_to_the_plain_scan(scan: Scan) -> None:
    """The kernel's sums of decays lose the small steps that come after long ones."""
    x, forward, backward, a, b, c = inputs(128, heads=1)
    forward[:, :40], forward[:, 40:] = 50.0, 0.001
    a = torch.full_like(a, -16.0)
    arguments = x, forward, torch.zeros_like(backward), a, b, c
    assert error(scan(*arguments), chunked_scan(*arguments)) > 1e-3
    kernel, note = select_kernel(tiny_config(), CUDA, torch.float32)
    assert (kernel.name, note) == (
        "plain",
        "mamba_ssm is for float16 and bfloat16, not precise enough for torch.float32",
    )


def test_the_packages_own_init_is_not_executed(combined: Combined) -> None:
    """It imports a CUDA extension, which is not built."""
    assert not hasattr(sys.modules["mamba_ssm"], "__version__")


def test_is_tried_out_at_the_sizes_of_the_model() -> None:
    """Triton tunes its kernels anew for other sizes."""
    sizes: list[list[tuple[torch.dtype, tuple[int, ...]]]] = []

    def noting(
        x: Tensor, forward: Tensor, backward: Tensor, a: Tensor, b: Tensor, c: Tensor
    ) -> Tensor:
        # All but windows and places, which the decays do not have.
        of_places = [(t.dtype, t.shape[2:]) for t in (x, forward, backward, b, c)]
        sizes.append([*of_places, (a.dtype, a.shape)])
        return chunked_scan(x, forward, backward, a, b, c)

    config = tiny_config(depth=1, expand=2, dim=24, scan_head_dim=16, scan_state=4)
    try_out(noting, config, CPU, torch.bfloat16)
    model = MambaReranker(config, noting).bfloat16().eval()
    score_windows(model, [random_window(config, 4)], CPU)
    trial, pass_ = sizes
    assert trial == pass_


def test_a_trial_accepts_the_kernel_and_refuses_a_wrong_one(scan: Scan) -> None:
    config = tiny_config(rerank={"window": 20, "stride": 10})
    try_out(scan, config, HERE, torch.float16)

    def forgetful(
        x: Tensor, forward: Tensor, backward: Tensor, a: Tensor, b: Tensor, c: Tensor
    ) -> Tensor:
        """Forgets at the border of a chunk what came before it."""
        parts = zip(*(t.split(64, 1) for t in (x, forward, backward, b, c)), strict=True)
        return torch.cat([chunked_scan(x, f, b_, a, b, c) for x, f, b_, b, c in parts], 1)

    with pytest.raises(ArithmeticError):
        try_out(forgetful, config, CPU, torch.float32)


def test_a_cpu_gets_the_plain_kernel() -> None:
    kernel, note = select_kernel(tiny_config(), CPU, torch.float32)
    assert (kernel.name, kernel.scan, note) == ("plain", chunked_scan, None)


def test_cuda_gets_the_kernel_where_it_works() -> None:
    kernel, note = select_kernel(tiny_config(), CUDA, torch.bfloat16)
    if HERE == CUDA:
        assert (kernel.name, note) == ("mamba_ssm", None)
    else:
        assert kernel.name == "plain"
        assert note is not None
        assert note.startswith("mamba_ssm does not work here: ")


def test_without_mamba_ssm_cuda_gets_the_plain_kernel_and_a_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "mamba_ssm", None)
    kernel, note = select_kernel(tiny_config(), CUDA, torch.bfloat16)
    assert kernel.name == "plain"
    assert note is not None
    assert note.startswith("mamba_ssm does not work here: ModuleNotFoundError")
