"""The state-space scan of Mamba-2, both ways, in plain PyTorch.

For every head, with state S of shape (p, n) and S_0 = 0 (Dao & Gu, "Transformers are SSMs",
ICML 2024, eq. 1 and listing 1):

    S_t = exp(dt_t * A) * S_{t-1} + dt_t * x_t B_t^T        y_t = S_t C_t

A place with dt = 0 leaves the state unchanged, as padding must.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F


class Scan(Protocol):
    """The sum of two scans, from the first place to the last and from the last to the first.

    Shapes: x (b, l, h, p), forward and backward, the steps dt of either scan, (b, l, h) >= 0,
    a (h,) < 0, b and c (b, l, n) shared by the heads; returns y (b, l, h, p)."""

    def __call__(
        self, x: Tensor, forward: Tensor, backward: Tensor, a: Tensor, b: Tensor, c: Tensor
    ) -> Tensor: ...


# On a CPU short chunks win: the work within a chunk grows with its square.
CHUNK = 32


def chunked_scan(
    x: Tensor,
    forward: Tensor,
    backward: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    *,
    chunk: int = CHUNK,
) -> Tensor:
    """The scans as matrix products within chunks and short recurrences between them. Within a
    chunk both ways are one product: forward is its lower triangle, backward its upper. Computes
    and returns float32 at least, whatever the inputs are."""
    x, b, c = (t if t.dtype == torch.float64 else t.float() for t in (x, b, c))
    heads, width = x.shape[2:]
    length = x.shape[1]
    padding = -length % chunk
    if padding:
        x = F.pad(x, (0, 0, 0, 0, 0, padding))
        forward, backward, b, c = (F.pad(t, (0, 0, 0, padding)) for t in (forward, backward, b, c))
    chunks = x.shape[1] // chunk
    x, b, c = (t.unflatten(1, (chunks, chunk)) for t in (x, b, c))
    dt = torch.stack((forward, backward)).to(x.dtype).unflatten(2, (chunks, chunk))
    dt = dt.permute(0, 1, 2, 4, 3)  # (2, b, chunks, h, chunk)
    log_decay = dt * a.to(x.dtype)[:, None]

    # The log of the share of what was written at j that remains at i: the decays after j up to i,
    # or from i up to the one before j. Sums restart in each chunk and are float64, so that
    # differences of sums in the thousands keep their digits.
    upto = log_decay.cumsum(-1, dtype=torch.float64)
    before = upto - log_decay
    places = torch.arange(chunk, device=x.device)
    later = places > places.unsqueeze(1)
    log_retention = torch.where(
        later,
        before[1].unsqueeze(-2) - before[1].unsqueeze(-1),
        upto[0].unsqueeze(-1) - upto[0].unsqueeze(-2),
    ).to(x.dtype)
    written = torch.where(later, dt[1].unsqueeze(-2), dt[0].unsqueeze(-2))
    scores = c @ b.mT  # (b, chunks, chunk, chunk)
    mixing = scores.unsqueeze(2) * log_retention.exp() * written
    in_heads = x.transpose(2, 3)  # (b, chunks, h, chunk, p)
    diagonal = scores.diagonal(dim1=-2, dim2=-1).unsqueeze(2) * dt[1]
    y = mixing @ in_heads + diagonal.unsqueeze(-1) * in_heads

    # What a chunk adds to the state, and what the next chunk reads from it.
    chunk_decay = upto[..., -1:]
    to_edge = torch.stack((chunk_decay[0] - upto[0], before[1])).to(x.dtype).exp() * dt
    from_edge = torch.stack((upto[0], chunk_decay[1] - before[1])).to(x.dtype).exp()
    added = (to_edge.unsqueeze(-1) * in_heads).transpose(-1, -2).flatten(3, 4) @ b
    added = added.unflatten(3, (heads, width))  # (2, b, chunks, h, p, n)
    retention = chunk_decay.to(x.dtype).exp().unsqueeze(-1)
    onward, back = _carried(added, retention)
    entering = torch.stack((torch.stack(onward, 1), torch.stack(back[::-1], 1)))
    carried = c @ entering.flatten(3, 4).mT  # (2, b, chunks, chunk, h p)
    carried = carried.unflatten(-1, (heads, width)).transpose(3, 4)
    y = y + from_edge[0].unsqueeze(-1) * carried[0] + from_edge[1].unsqueeze(-1) * carried[1]
    result: Tensor = y.transpose(2, 3).flatten(1, 2)[:, :length]
    return result


def _carried(added: Tensor, retention: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """The states (b, …) at the entries of the chunks, from the first chunk on and from the last one
    back."""

    def entered(added: Sequence[Tensor], retention: Sequence[Tensor]) -> list[Tensor]:
        state = torch.zeros_like(added[0])
        states = []
        for share, addition in zip(retention, added, strict=True):
            states.append(state)
            state = torch.addcmul(addition, share, state)
        return states

    # unbind, not indexing: the gradient of an index fills a tensor of the whole size with zeros.
    forward, backward = (t.unbind(1) for t in added)
    forward_retention, backward_retention = (t.unbind(1) for t in retention)
    return entered(forward, forward_retention), entered(backward[::-1], backward_retention[::-1])
