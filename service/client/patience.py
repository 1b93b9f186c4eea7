"""How long a call may take, and when it is made again."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypedDict, TypeVar

from tenacity import (
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    stop_before_delay,
    wait_random_exponential,
)
from tenacity.retry import retry_base
from tenacity.stop import stop_base
from tenacity.wait import wait_base

from service.client.errors import ClientError, UnreachableError

_REFUSED_FOR_NOW = (429, 503)
_ASKED_FOR_MORE = 0.25
"""What is at most added to a Retry-After: clients refused together are not to come back so."""
_LEAST = 0.001
_Item = TypeVar("_Item")


class Deadline(Mapping[str, float]):
    """`seconds` from now. As a mapping it is httpx's `timeout` extension: the connection asks it
    before each of its steps, so that a later step waits only for what earlier ones have left."""

    def __init__(self, seconds: float) -> None:
        self._at = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds, never quite 0: a socket would take that for another mode."""
        return max(self._at - time.monotonic(), _LEAST)

    def passed(self) -> bool:
        return time.monotonic() >= self._at

    def watch(self, items: Iterable[_Item]) -> Iterator[_Item]:
        """Raises TimeoutError instead of an item that comes too late."""
        for item in items:
            if self.passed():
                raise TimeoutError
            yield item

    def __getitem__(self, step: str) -> float:
        if step not in ("connect", "pool", "read", "write"):
            raise KeyError(step)
        return self.left()

    def __iter__(self) -> Iterator[str]:
        return iter(("connect", "pool", "read", "write"))

    def __len__(self) -> int:
        return 4


class Policy(TypedDict):
    """Arguments of tenacity's Retrying and AsyncRetrying."""

    stop: stop_base
    wait: wait_base
    retry: retry_base
    reraise: bool


def policy(timeout: float, retries: int, *, repeatable: bool) -> Policy:
    """At most `retries` times again and never past `timeout` seconds: a wait that would end later
    is not begun, and the error before it is raised. `repeatable`: whether a call of which no answer
    came may be made again."""

    def again(error: BaseException) -> bool:
        if isinstance(error, UnreachableError):
            return repeatable
        return isinstance(error, ClientError) and error.status in _REFUSED_FOR_NOW

    return Policy(
        stop=stop_after_attempt(retries + 1) | stop_before_delay(timeout),
        wait=_Wait(),
        retry=retry_if_exception(again),
        reraise=True,
    )


class _Wait(wait_base):
    """As Retry-After says and a little more, else at random up to 0.25 s, 0.5 s, 1 s, … 5 s."""

    _backoff = wait_random_exponential(multiplier=0.25, max=5)

    def __call__(self, retry_state: RetryCallState) -> float:
        error = retry_state.outcome.exception() if retry_state.outcome else None
        if isinstance(error, ClientError) and error.retry_after is not None:
            return error.retry_after * random.uniform(1, 1 + _ASKED_FOR_MORE)  # noqa: S311
        return self._backoff(retry_state)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the header `Retry-After` asks for (RFC 9110, 10.2.3): a number of them, or a
    date, which is taken by the answer's own `Date` where it has one, as clocks differ."""
    said = headers.get("Retry-After", "").strip()
    if said.isdecimal():
        return float(said)
    at = _date(said)
    if at is None:
        return None
    now = _date(headers.get("Date", "")) or datetime.now(UTC)
    return max((at - now).total_seconds(), 0.0)


def _date(text: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found
