"""Work is shared, but never with a caller that came after it began."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.gallery.shared_work import SharedWork
from tests.loops import in_a_loop


class Counter:
    """Its work takes `seconds`, and tells which run it was."""

    def __init__(self, seconds: float = 0.01) -> None:
        self.begun = 0
        self.at_a_time = 0
        self._seconds = seconds

    async def work(self, key: str) -> tuple[str, int]:
        self.begun += 1
        self.at_a_time += 1
        run = self.begun
        try:
            assert self.at_a_time == 1
            await asyncio.sleep(self._seconds)
        finally:
            self.at_a_time -= 1
        if key == "broken":
            raise OSError("broken")
        return key, run


@in_a_loop
async def test_callers_at_a_time_share_one_run() -> None:
    counter = Counter()
    shared = SharedWork(counter.work)
    assert set(await asyncio.gather(*(shared.result("a") for _ in range(50)))) == {("a", 1)}
    assert await shared.result("a") == ("a", 2)


@given(st.lists(st.floats(0, 0.004), max_size=20))
@in_a_loop
async def test_no_run_began_before_its_caller_came(pauses: list[float]) -> None:
    counter = Counter(0.002)
    shared = SharedWork(counter.work)

    async def one() -> None:
        before = counter.begun
        _, run = await shared.result("a")
        # And nobody waits for more than the run that is under way and the one after it.
        assert before < run <= before + 2

    callers = []
    for pause in pauses:
        callers.append(asyncio.create_task(one()))
        await asyncio.sleep(pause)
    await asyncio.gather(*callers)


@in_a_loop
async def test_an_error_is_told_to_all_and_forgotten() -> None:
    shared = SharedWork(Counter().work)
    errors = await asyncio.gather(
        *(shared.result("broken") for _ in range(3)), return_exceptions=True
    )
    assert [str(error) for error in errors] == ["broken"] * 3
    assert await shared.result("a") == ("a", 2)


@in_a_loop
async def test_who_is_cancelled_takes_nobody_along() -> None:
    shared = SharedWork(Counter().work)
    impatient = asyncio.create_task(shared.result("a"))
    patient = asyncio.create_task(shared.result("a"))
    await asyncio.sleep(0.001)
    impatient.cancel()
    assert await patient == ("a", 1)
    with pytest.raises(asyncio.CancelledError):
        await impatient
