"""How long a call may take, and when it is repeated."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

from locore_client.exceptions import ClientError, ExtractorUnavailableError, UnreachableError

_REFUSED_FOR_NOW = (429, 503)
_RETRY_SPREAD = 0.25
"""Largest share added to a Retry-After, so that clients refused together do not return together."""
_MIN_SECONDS = 0.001
_FIRST_BOUND, _LAST_BOUND = 0.25, 5.0
"""Longest wait, in seconds, if the service says nothing; it doubles with every try."""
_Item = TypeVar("_Item")


class Deadline(Mapping[str, float]):
    """A deadline `seconds` from now. As a mapping it is httpx's `timeout` extension: the connection
    reads it before each step, so a step gets only the time that earlier ones have left."""

    def __init__(self, seconds: float) -> None:
        self._at = time.monotonic() + seconds

    def left(self) -> float:
        """The remaining seconds, always above 0, which has another meaning for sockets."""
        return max(self._at - time.monotonic(), _MIN_SECONDS)

    def passed(self) -> bool:
        return time.monotonic() >= self._at

    def watch(self, items: Iterable[_Item]) -> Iterator[_Item]:
        """Passes items on. Raises TimeoutError when one comes too late."""
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


class Patience:
    """How often, and when, a failed call is repeated: at most `retries` times, and never after
    `deadline`. `repeatable`: whether a call without an answer may be repeated."""

    def __init__(self, deadline: Deadline, retries: int, *, repeatable: bool) -> None:
        self._deadline = deadline
        self._retries = retries
        self._repeatable = repeatable
        self._bound = _FIRST_BOUND

    def wait(self, error: ClientError) -> float | None:
        """Seconds until the next try, or None if there is none: Retry-After and a little more, else
        a random time up to 0.25 s, 0.5 s, 1 s, … 5 s."""
        if not self._retries or not self._may_go_again(error):
            return None
        if error.retry_after is None:
            seconds = random.uniform(0, self._bound)  # noqa: S311
        else:
            seconds = error.retry_after * random.uniform(1, 1 + _RETRY_SPREAD)  # noqa: S311
        if seconds >= self._deadline.left():
            return None
        self._retries -= 1
        self._bound = min(2 * self._bound, _LAST_BOUND)
        return seconds

    def _may_go_again(self, error: ClientError) -> bool:
        if isinstance(error, UnreachableError):
            return self._repeatable
        if isinstance(error, ExtractorUnavailableError):
            return False
        return error.status in _REFUSED_FOR_NOW


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds of the header `Retry-After` (RFC 9110, 10.2.3): a number, or a date. A date is
    relative to the answer's own `Date` if it has one, since clocks differ."""
    value = headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value)
    at = _date(value)
    if at is None:
        return None
    now = _date(headers.get("Date", "")) or datetime.now(UTC)
    return max((at - now).total_seconds(), 0.0)


def _date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return date.replace(tzinfo=UTC) if date.tzinfo is None else date
