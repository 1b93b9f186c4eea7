"""The state-space scan of Mamba-2 behind one signature, with two implementations.

For every head, with state S of shape (p, n) and S_0 = 0 (Dao & Gu, "Transformers are SSMs",
ICML 2024, eq. 1 and listing 1):

    S_t = exp(dt_t * A) * S_{t-1} + dt_t * x_t B_t^T        y_t = S_t C_t

A place with dt = 0 leaves the state as it is: that is how padding passes through unchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F


class Scan(Protocol):
    """Shapes: x (b, l, h, p), dt (b, l, h) >= 0, a (h,) < 0, b and c (b, l, n) shared by the
    heads; returns y (b, l, h, p). `reverse` runs from the last place to the first."""

    def __call__(
        self, x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, *, reverse: bool
    ) -> Tensor: ...


@dataclass(frozen=True)
class ScanKernel:
    """An implementation and the name under which the log and `locore_model_info` report it."""

    name: str
    scan: Scan


# On a CPU short chunks win: what is done within one grows with its square.
PLAIN_CHUNK, CUDA_CHUNK = 32, 128


def chunked_scan(
    x: Tensor,
    dt: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    *,
    reverse: bool,
    chunk: int = PLAIN_CHUNK,
) -> Tensor:
    """The scan as matrix products within chunks and a short recurrence between them. Computes
    and returns float32 at least, whatever the inputs are."""
    x, b, c = (t if t.dtype == torch.float64 else t.float() for t in (x, b, c))
    if reverse:
        x, dt, b, c = (t.flip(1) for t in (x, dt, b, c))
    length = x.shape[1]
    padding = -length % chunk
    if padding:
        x, dt = F.pad(x, (0, 0, 0, 0, 0, padding)), F.pad(dt, (0, 0, 0, padding))
        b, c = F.pad(b, (0, 0, 0, padding)), F.pad(c, (0, 0, 0, padding))
    chunks = x.shape[1] // chunk
    x = (x * dt.unsqueeze(-1)).unflatten(1, (chunks, chunk))
    b, c = b.unflatten(1, (chunks, chunk)), c.unflatten(1, (chunks, chunk))

    # Decays are differences of running sums. In float32 the sums of a long chunk have lost the
    # digits that the difference of two neighbours needs, so they alone are kept in float64.
    log_decay = (dt.double() * a.double()).unflatten(1, (chunks, chunk))
    total = log_decay.cumsum(2).permute(0, 3, 1, 2)  # (b, h, chunks, chunk)
    causal = torch.ones(chunk, chunk, dtype=torch.bool, device=x.device).tril()
    between = (total.unsqueeze(-1) - total.unsqueeze(-2)).to(x.dtype)
    within = between.masked_fill(~causal, float("-inf")).exp()

    scores = torch.einsum("bzin,bzjn->bzij", c, b)
    mixing = scores.unsqueeze(1) * within  # (b, h, chunks, chunk, chunk)
    y = torch.einsum("bhzij,bzjhp->bzihp", mixing, x)

    to_end = (total[..., -1:] - total).to(x.dtype).exp()
    written = torch.einsum("bzjn,bhzj,bzjhp->bzhpn", b, to_end, x)
    whole = total[..., -1].to(x.dtype).exp()
    state = torch.zeros_like(written[:, 0])
    entering = []
    # unbind, not indexing: the gradient of an index fills a tensor of the whole size with zeros.
    for kept, added in zip(whole.unbind(-1), written.unbind(1), strict=True):
        entering.append(state)
        state = torch.addcmul(added, kept[..., None, None], state)
    from_start = total.to(x.dtype).exp()
    y = y + torch.einsum("bzin,bzhpn,bhzi->bzihp", c, torch.stack(entering, dim=1), from_start)
    y = y.flatten(1, 2)[:, :length]
    return y.flip(1) if reverse else y


def mamba_ssm_scan(combined: Callable[..., Tensor]) -> Scan:
    """`mamba_chunk_scan_combined` under our signature."""

    def scan(x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, *, reverse: bool) -> Tensor:
        if reverse:
            x, dt, b, c = (t.flip(1) for t in (x, dt, b, c))
        y = combined(
            x.contiguous(),
            dt.float().contiguous(),
            a.float(),
            b.unsqueeze(2).contiguous(),
            c.unsqueeze(2).contiguous(),
            chunk_size=CUDA_CHUNK,
        )
        return y.flip(1) if reverse else y

    return scan


def select_kernel(device: torch.device, dtype: torch.dtype) -> tuple[ScanKernel, str | None]:
    """The fastest implementation that this machine has, and why not `mamba_ssm` if it is not.

    For float32 that is the plain one: Triton's products of float32 are TF32 on NVIDIA's devices,
    about 1e-3, where the contract promises scores to 1e-4.
    """
    plain = ScanKernel("plain", chunked_scan)
    if device.type != "cuda":
        return plain, None
    if dtype not in (torch.float16, torch.bfloat16):
        return plain, f"mamba_ssm is for float16 and bfloat16, not {dtype}"
    try:
        from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined

        kernel = ScanKernel("mamba_ssm", mamba_ssm_scan(mamba_chunk_scan_combined))
        _try_out(kernel.scan, device, dtype)
    # A broken build fails in its own ways: a missing CUDA module, a Triton that does not match,
    # no compiler when the kernel is first launched.
    except Exception as error:  # noqa: BLE001
        return plain, f"mamba_ssm does not work here: {type(error).__name__}: {error}"
    return kernel, None


def _try_out(scan: Scan, device: torch.device, dtype: torch.dtype) -> None:
    """Raises ArithmeticError where it is far from the plain scan."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 200, 2, 16, generator=generator)
    dt = torch.rand(1, 200, 2, generator=generator)
    a = torch.tensor([-1.0, -8.0])
    b, c = torch.randn(2, 1, 200, 16, generator=generator)
    for reverse in (False, True):
        expected = chunked_scan(x, dt, a, b, c, reverse=reverse)
        moved = (t.to(device, dtype) for t in (x, b, c))
        on_device, b_there, c_there = moved
        found = scan(on_device, dt.to(device), a.to(device), b_there, c_there, reverse=reverse)
        if (found.float().cpu() - expected).norm() > 0.05 * expected.norm():
            raise ArithmeticError("its result is wrong")
