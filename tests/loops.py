"""Tests that are coroutines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec

_Arguments = ParamSpec("_Arguments")


def in_a_loop(
    test: Callable[_Arguments, Coroutine[Any, Any, None]],
) -> Callable[_Arguments, None]:
    """A test that runs in an event loop of its own."""

    @wraps(test)
    def plain(*arguments: _Arguments.args, **named: _Arguments.kwargs) -> None:
        asyncio.run(test(*arguments, **named))

    return plain
