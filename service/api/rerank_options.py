"""How a list is re-ranked: the caller's choices, else the checkpoint's defaults."""

from __future__ import annotations

from model.config import ModelConfig
from model.windows import Direction, RerankOptions
from service.api.errors import UnprocessableError


def rerank_options(
    config: ModelConfig,
    images: int,
    *,
    alpha: float | None = None,
    temperature: float | None = None,
    window: int | None = None,
    stride: int | None = None,
    direction: Direction | None = None,
) -> RerankOptions:
    """The options for a list of `images`; None means the checkpoint's default. The default stride
    is at most the window. Raises UnprocessableError for a stride larger than the window, and for a
    window that the checkpoint cannot read.
    """
    defaults, longest = config.rerank, config.longest_window
    window = defaults.window if window is None else window
    if longest is not None and min(window, images) > longest:
        raise UnprocessableError(
            f"window: {window} images, but the checkpoint reads at most {longest}",
            field="window",
        )
    stride = min(defaults.stride, window) if stride is None else stride
    if stride > window:
        raise UnprocessableError(
            f"stride: {stride} is larger than the window of {window}", field="stride"
        )
    return RerankOptions(
        alpha=defaults.alpha if alpha is None else alpha,
        temperature=defaults.temperature if temperature is None else temperature,
        window=window,
        stride=stride,
        direction=direction or defaults.direction,
        listwise=config.listwise,
    )
