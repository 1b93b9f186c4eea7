"""The implementations of the scan: `mamba_ssm`'s Triton kernel under our signature, and the choice
for a machine."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec, module_from_spec

import torch
from torch import Tensor

from model.config import HybridConfig
from model.scan import Scan, chunked_scan

CHUNK = 128
"""Places that the Triton kernel scans in one matrix product."""


@dataclass(frozen=True)
class ScanKernel:
    """An implementation, and its name in the log and in `locore_model_info`."""

    name: str
    scan: Scan


def select_kernel(
    config: HybridConfig, device: torch.device, dtype: torch.dtype
) -> tuple[ScanKernel, str | None]:
    """The fastest implementation that this machine has for a network of these sizes, and why not
    `mamba_ssm` if it is not.

    For float32 that is the plain one, since the contract promises scores to 1e-4: the Triton
    kernel sums the decays of a chunk in float32 (after 40 steps of 50 it is off by 9e-3), and its
    products are TF32 on NVIDIA's devices (1e-3) unless TRITON_F32_DEFAULT=ieee.
    """
    plain = ScanKernel("plain", chunked_scan)
    if device.type != "cuda":
        return plain, None
    if dtype not in (torch.float16, torch.bfloat16):
        return plain, f"mamba_ssm is for float16 and bfloat16, not precise enough for {dtype}"
    try:
        scan = mamba_ssm_scan(mamba_chunk_scan())
        try_out(scan, config, device, dtype)
    # A broken build fails in its own ways: a Triton that does not match, no compiler when the
    # kernel is first launched.
    except Exception as error:  # noqa: BLE001
        return plain, f"mamba_ssm does not work here: {type(error).__name__}: {error}"
    return ScanKernel("mamba_ssm", scan), None


def mamba_chunk_scan() -> Callable[..., Tensor]:
    """`mamba_chunk_scan_combined` of `mamba_ssm`. The package's `__init__` is not executed: it
    wants a CUDA extension and many packages, the kernel only Triton and einops.

    Raises ImportError."""
    spec = find_spec("mamba_ssm")
    if spec is None:
        raise ModuleNotFoundError("No module named 'mamba_ssm'")
    sys.modules.setdefault("mamba_ssm", module_from_spec(spec))
    from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined

    kernel: Callable[..., Tensor] = mamba_chunk_scan_combined
    return kernel


def mamba_ssm_scan(combined: Callable[..., Tensor]) -> Scan:
    """`mamba_chunk_scan_combined` under our signature: both ways in one call, the backward one as
    more windows that are read from their end. Returns float32."""

    def scan(
        x: Tensor, forward: Tensor, backward: Tensor, a: Tensor, b: Tensor, c: Tensor
    ) -> Tensor:
        # One of its launches names no device.
        with torch.cuda.device(x.device):
            y = combined(
                torch.cat((x, x.flip(1))),
                torch.cat((forward, backward.flip(1))).float(),
                a.float(),
                torch.cat((b, b.flip(1))).unsqueeze(2),
                torch.cat((c, c.flip(1))).unsqueeze(2),
                chunk_size=CHUNK,
            )
        onward, back = y.float().chunk(2)
        return onward + back.flip(1)

    return scan


def try_out(scan: Scan, config: HybridConfig, device: torch.device, dtype: torch.dtype) -> None:
    """Compare a scan with the plain one on a window as the network reads them: Triton tunes a
    kernel for its sizes when it first sees them, and does so here and not under a request.

    Raises ArithmeticError if the results are far apart."""
    heads, width, state = config.scan_heads, config.scan_head_dim, config.scan_state
    cost = config.window_cost([config.descriptors_per_image] * (1 + config.rerank.window))
    length = cost.images * cost.slots
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, length, heads, width, generator=generator)
    forward, backward = 0.1 * torch.rand(2, 1, length, heads, generator=generator)
    # The slowest head remembers beyond a chunk.
    a = -torch.linspace(0.1, 16.0, heads)
    b, c = torch.randn(2, 1, length, state, generator=generator)
    expected = chunked_scan(x, forward, backward, a, b, c)
    halves = [t.to(device, dtype) for t in (x, b, c)]
    steps = [t.to(device) for t in (forward, backward, a)]
    y = scan(halves[0], *steps, *halves[1:])
    if (y.float().cpu() - expected).norm() > 0.05 * expected.norm():
        raise ArithmeticError("its result is wrong")
