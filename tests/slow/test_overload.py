"""The overload guard: 3 and 10 times the peak, by default settings, keep four fifths of it."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
import pytest

from tests.e2e.overload import CHECKPOINT, Overload, register
from tests.e2e.service import RunningService, running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

log = logging.getLogger(__name__)

LEAST_GOODPUT = 0.8
"""Of the peak, which is measured before and after: other work on the machine comes and goes."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with running(CHECKPOINT, tmp_path_factory.mktemp("overload")) as started:
        register(started)
        yield started


@pytest.mark.parametrize("slo_seconds", [1, 3, 10])
@pytest.mark.parametrize("times", [3, 10])
@pytest.mark.parametrize("lengths", [(10,), (100,), (10, 100)], ids=str)
def test_goodput_under_overload(
    service: RunningService, lengths: tuple[int, ...], times: int, slo_seconds: int
) -> None:
    overload = Overload(service, lengths)
    requests = 500 if lengths == (10,) else 100
    before = overload.peak(requests)
    offered = overload.offered(times * before, 5 + 1.5 * slo_seconds, slo_seconds)
    after = overload.peak(requests)
    peak = min(before, after)
    answered = [answer.seconds for answer in offered.answered]
    log.info(
        "lists of %s, %d times %.1f a second, %d s: goodput %.1f (%.0f %%), p99 %.2f s, "
        "429 %d, 504 %d, late %d, no answer %d",
        lengths,
        times,
        before,
        slo_seconds,
        offered.goodput,
        100 * offered.goodput / peak,
        np.percentile(answered, 99),
        offered.count(429),
        offered.count(504),
        len(answered) - len(offered.in_time),
        offered.count(0),
    )
    assert offered.goodput >= LEAST_GOODPUT * peak
    assert np.percentile(answered, 99) <= slo_seconds
    assert offered.count(200, 429, 504) == len(offered.answers)
