"""Deadlines and retries."""

from __future__ import annotations

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from locore_client import (
    ClientError,
    DeadlineExceededError,
    NotFromServiceError,
    OverloadedError,
    RequestValidationError,
    StoreUnavailableError,
    UnreachableError,
    calls,
)
from locore_client.contract import MAX_TIMEOUT_MS
from locore_client.patience import Deadline, Patience, retry_after


@given(st.floats(0, 1e6), st.integers(1, MAX_TIMEOUT_MS))
def test_what_is_left_is_told_within_the_contract_s_bounds(seconds: float, longest: int) -> None:
    told = calls.timeout_ms(seconds, longest)
    assert 1 <= told <= longest
    assert told == 1 or told <= seconds * 1000


def test_a_deadline_gives_each_step_what_is_left() -> None:
    deadline = Deadline(100)
    steps = [deadline[step] for step in deadline]
    assert len(steps) == len(deadline) == 4
    assert sorted(steps, reverse=True) == steps
    assert 99 < steps[-1] < 100
    over = Deadline(0)
    assert 0 < over["read"] < 0.01
    with pytest.raises(TimeoutError):
        list(over.watch([b"a"]))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "0"}, 0.0),
        ({"Retry-After": " 17 "}, 17.0),
        ({"Retry-After": "-3"}, None),
        ({"Retry-After": "1.5"}, None),
        ({"Retry-After": "soon"}, None),
        (
            {
                "Retry-After": "Wed, 21 Oct 2026 07:28:30 GMT",
                "Date": "Wed, 21 Oct 2026 07:28:00 GMT",
            },
            30.0,
        ),
        (
            {
                "Retry-After": "Wednesday, 21-Oct-26 07:28:05 GMT",
                "Date": "Wed, 21 Oct 2026 07:28:00 GMT",
            },
            5.0,
        ),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(httpx.Headers(headers)) == seconds


def refused(seconds: float | None = None) -> OverloadedError:
    return OverloadedError("overloaded", "full", 429, retry_after=seconds)


def tried(
    error: ClientError,
    *,
    timeout: float = 1_000,
    retries: int = 4,
    repeatable: bool = True,
) -> tuple[int, list[float]]:
    """How often what always fails is tried, and the waits between."""
    patience = Patience(Deadline(timeout), retries, repeatable=repeatable)
    waits: list[float] = []
    while (seconds := patience.wait(error)) is not None:
        waits.append(seconds)
    return 1 + len(waits), waits


def test_a_refusal_is_waited_out_as_it_asks_for() -> None:
    attempts, waits = tried(refused(8))
    assert attempts == 5
    assert all(8 <= wait <= 10 for wait in waits)
    assert len(set(waits)) == 4


def test_without_a_time_the_waits_grow_at_random() -> None:
    many = [tried(refused(), retries=7)[1] for _ in range(50)]
    bounds = [0.25, 0.5, 1, 2, 4, 5, 5]
    for place, bound in enumerate(bounds):
        waits = [waits[place] for waits in many]
        assert all(0 <= wait <= bound for wait in waits)
        assert max(waits) > bound / 2
        assert min(waits) < bound / 2


def test_no_wait_is_begun_that_ends_after_the_deadline() -> None:
    assert tried(refused(30), timeout=29) == (1, [])
    assert tried(refused(), timeout=1e-9) == (1, [])


def test_retries_can_be_turned_off() -> None:
    assert tried(refused(), retries=0) == (1, [])


@pytest.mark.parametrize(
    ("error", "repeatable", "again"),
    [
        (refused(), False, True),
        (StoreUnavailableError("store_unavailable", "away", 503), False, True),
        (NotFromServiceError("not_ours", "a proxy's", 503), True, True),
        (NotFromServiceError("not_ours", "a proxy's", 502), True, False),
        (UnreachableError("unreachable", "gone"), True, True),
        (UnreachableError("unreachable", "gone"), False, False),
        (DeadlineExceededError("deadline_exceeded", "late", 504), True, False),
        (RequestValidationError("validation_error", "wrong", 422), True, False),
        (ClientError("internal", "a defect", 500), True, False),
    ],
)
def test_what_is_tried_again(error: ClientError, repeatable: bool, again: bool) -> None:
    attempts, _ = tried(error, retries=2, repeatable=repeatable)
    assert attempts == (3 if again else 1)
