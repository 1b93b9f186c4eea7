"""How long a call may take, and when it is made again."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

from locore_client.exceptions import ClientError, ExtractorUnavailableError, UnreachableError

_REFUSED_FOR_NOW = (429, 503)
_ASKED_FOR_MORE = 0.25
"""What is at most added to a Retry-After: clients refused together are not to come back so."""
_LEAST = 0.001
_FIRST_BOUND, _LAST_BOUND = 0.25, 5.0
"""Seconds that a wait has at most where the service does not say; each has twice the former's."""
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


class Patience:
    """How often, and when, a call that failed is made again: at most `retries` times and never past
    `deadline`, since a wait that would end later is not begun. `repeatable`: whether a call of
    which no answer came may be made again."""

    def __init__(self, deadline: Deadline, retries: int, *, repeatable: bool) -> None:
        self._deadline = deadline
        self._retries = retries
        self._repeatable = repeatable
        self._bound = _FIRST_BOUND

    def wait(self, error: ClientError) -> float | None:
        """Seconds until the next try; None where there is none, and `error` is what is left. As
        Retry-After says and a little more, else at random up to 0.25 s, 0.5 s, 1 s, … 5 s."""
        if not self._retries or not self._may_go_again(error):
            return None
        if error.retry_after is None:
            seconds = random.uniform(0, self._bound)  # noqa: S311
        else:
            seconds = error.retry_after * random.uniform(1, 1 + _ASKED_FOR_MORE)  # noqa: S311
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
