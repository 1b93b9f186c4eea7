"""The batcher with a real worker and model: every request that enters leaves."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.checkpoint import LoadedModel
from model.model_info import ModelInfo
from model.windows import RerankOptions, Window
from service.api.errors import ApiError, DeadlineExceededError, OverloadedError
from service.batching.batcher import Batcher, IncomingRequest
from service.batching.job import Job
from service.batching.speed import Speed
from service.batching.window_queue import WindowQueue
from service.batching.worker import Worker, measured_speed
from service.inference.model_process import ModelProcess
from tests.factories import image, load_tiny
from tests.loops import in_a_loop
from tests.processes import children

OPTIONS = RerankOptions(0.0, 1.0, 4, 2, "end-to-start")
SPEED = Speed(per_pass=0.003, per_window=0.002, per_unit=1e-5)


class FaultyWorker(Worker):
    """The real worker, but passes fail whose numbers are in `failing`, and batches that hold a
    gallery of `poison` images always do."""

    def __init__(
        self, model: LoadedModel, failing: frozenset[int] = frozenset(), poison: int = -1
    ) -> None:
        super().__init__(model)
        self.passes: list[int] = []
        self._failing = failing
        self._poison = poison

    async def score(self, windows: Sequence[Window]) -> list[NDArray[np.float32]]:
        self.passes.append(len(windows))
        if len(self.passes) in self._failing:
            raise RuntimeError("a made-up fault of the device")
        if any(len(window.gallery) == self._poison for window in windows):
            raise RuntimeError("a window that cannot be scored")
        return await super().score(windows)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_tiny(tmp_path_factory.mktemp("model"))


@asynccontextmanager
async def started(
    worker: Worker,
    *,
    max_queue_tokens: int = 10_000,
    speed: Speed = SPEED,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[Batcher]:
    """A batcher for the time of the block, which may take 20 seconds."""
    queue = WindowQueue(speed, max_batch_tokens=600, max_queue_tokens=max_queue_tokens)
    batcher = Batcher(queue, worker, recheck_seconds=0.01, clock=clock)
    batcher.start()
    try:
        async with asyncio.timeout(20):
            yield batcher
    finally:
        await batcher.close()
        worker.close()


@asynccontextmanager
async def stopped_process(folder: Path) -> AsyncIterator[tuple[ModelProcess, int, Batcher]]:
    """A model in a process of its own, which computes nothing yet; its number; a batcher of it."""
    load_tiny(folder)
    with ModelProcess(folder / "tiny.safetensors", "cpu", "float32") as process:
        (child,) = children(os.getpid(), str(folder))
        os.kill(child, signal.SIGSTOP)
        async with started(Worker(process)) as batcher:
            yield process, child, batcher


def job(
    model: LoadedModel | ModelInfo, images: int, seed: int = 0, deadline: float = math.inf
) -> Job:
    rng = np.random.default_rng(seed)
    gallery = [image(rng, model.config) for _ in range(images)]
    one = Job(model.config, images, OPTIONS, deadline)
    one.begin(image(rng, model.config), gallery, None)
    return one


async def ask(batcher: Batcher, one: Job) -> Job:
    with batcher.admit(one):
        await batcher.score(one)
    return one


@in_a_loop
async def test_concurrent_jobs_share_passes_and_get_their_own_scores(model: LoadedModel) -> None:
    worker = FaultyWorker(model)
    async with started(worker) as batcher:
        alone = [await ask(batcher, job(model, 3 + n, n)) for n in range(8)]
        worker.passes.clear()
        together = await asyncio.gather(*(ask(batcher, job(model, 3 + n, n)) for n in range(8)))
        for one, other in zip(alone, together, strict=True):
            assert one.result()[0].tolist() == other.result()[0].tolist()
            np.testing.assert_allclose(one.result()[1], other.result()[1], atol=1e-4)
        assert max(worker.passes) > 1


@in_a_loop
async def test_a_window_that_cannot_be_scored_takes_nobody_along(model: LoadedModel) -> None:
    worker = FaultyWorker(model, poison=3)
    async with started(worker) as batcher:
        answers = await asyncio.gather(
            *(ask(batcher, job(model, images)) for images in (4, 3, 4)), return_exceptions=True
        )
        assert [type(answer) for answer in answers] == [Job, ApiError, Job]
        assert batcher.problem is None


@in_a_loop
async def test_scores_that_do_not_fit_fail_their_list_alone(model: LoadedModel) -> None:
    class WrongWorker(Worker):
        async def score(self, windows: Sequence[Window]) -> list[NDArray[np.float32]]:
            scores = await super().score(windows)
            return [s[:-1] if len(s) == 3 else s for s in scores]

    async with started(WrongWorker(model)) as batcher:
        answers = await asyncio.gather(
            *(ask(batcher, job(model, images)) for images in (4, 3, 4)), return_exceptions=True
        )
        assert [type(answer) for answer in answers] == [Job, ApiError, Job]
        assert batcher.problem is None


@in_a_loop
async def test_a_list_without_scores_is_told_so(model: LoadedModel) -> None:
    class ForgetfulWorker(Worker):
        async def score(self, windows: Sequence[Window]) -> list[NDArray[np.float32]]:
            scores = await super().score(windows)
            return [s for s in scores if len(s) != 3]

    async with started(ForgetfulWorker(model)) as batcher:
        answers = await asyncio.gather(
            *(ask(batcher, job(model, images)) for images in (4, 3, 4)), return_exceptions=True
        )
        assert [type(answer) for answer in answers] == [Job, ApiError, Job]


@in_a_loop
async def test_a_failure_says_nothing_of_the_speed(model: LoadedModel) -> None:
    class SlowFault(FaultyWorker):
        async def score(self, windows: Sequence[Window]) -> list[NDArray[np.float32]]:
            if not self.passes:
                await asyncio.sleep(1)
            return await super().score(windows)

    async with started(SlowFault(model, failing=frozenset({1, 3}))) as batcher:
        with pytest.raises(ApiError, match="could not be scored"):
            await ask(batcher, job(model, 2))
        assert batcher._pace.factor(time.monotonic()) == 1


@in_a_loop
async def test_a_device_that_stays_broken_is_a_problem_until_it_recovers(
    model: LoadedModel,
) -> None:
    worker = FaultyWorker(model, failing=frozenset({1, 2}))
    async with started(worker) as batcher:
        with pytest.raises(ApiError, match="could not be scored"):
            await ask(batcher, job(model, 2))
        assert batcher.problem == "the model fails: RuntimeError"
        while batcher.problem is not None:  # noqa: ASYNC110 - that it is polled is the point
            await asyncio.sleep(0.05)
        await ask(batcher, job(model, 2))


@in_a_loop
async def test_a_full_queue_refuses_and_says_when_to_come_back(model: LoadedModel) -> None:
    async with started(Worker(model), max_queue_tokens=60) as batcher:
        with batcher.admit(job(model, 8)):
            with pytest.raises(OverloadedError, match="full") as caught:
                batcher.refuse_hopeless(math.inf)
            assert caught.value.retry_after is not None
            assert caught.value.retry_after >= 1
            with pytest.raises(OverloadedError):
                await ask(batcher, job(model, 2))
        await ask(batcher, job(model, 2))


@in_a_loop
async def test_who_would_be_late_is_refused_at_once(model: LoadedModel) -> None:
    """By the measured speed: a second a window."""
    now = 100.0
    slow = Speed(per_pass=1, per_window=0, per_unit=1e-9)
    async with started(Worker(model), speed=slow, clock=lambda: now) as batcher:
        with batcher.admit(job(model, 4, deadline=101.5)), batcher.admit(job(model, 4)):
            # Two windows wait. Before a list is parsed they may take two fifths of its time.
            batcher.refuse_hopeless(105.1)
            with pytest.raises(OverloadedError, match="timeout_ms") as hopeless:
                batcher.refuse_hopeless(104.9)
            assert hopeless.value.retry_after == 1
            # Afterwards four fifths, of which its own pass is one.
            with batcher.admit(job(model, 4, deadline=103.6)):
                pass
            with pytest.raises(OverloadedError):
                await ask(batcher, job(model, 4, deadline=103.4))
            # What is about to come is counted: as much as windows usually take.
            batcher._window_seconds = 1
            expected = IncomingRequest(batcher, checked=True)
            with (
                batcher.incoming_request(110),
                pytest.raises(OverloadedError) as far,
            ):
                batcher.refuse_hopeless(109.9)
            assert far.value.retry_after == 1
            expected.end()
            expected.end()
            assert batcher.incoming == 0
            batcher.refuse_hopeless(105.1)


@in_a_loop
async def test_the_worker_has_the_next_batch_before_the_device_is_free(tmp_path: Path) -> None:
    async with stopped_process(tmp_path) as (process, child, batcher):
        first = asyncio.ensure_future(ask(batcher, job(process.info, 3)))
        while not batcher._passes:  # noqa: ASYNC110 - as below
            await asyncio.sleep(0.01)
        others = [asyncio.ensure_future(ask(batcher, job(process.info, 4))) for _ in range(5)]
        await asyncio.sleep(0.1)
        # The second batch has what had come when it was taken, the third what comes later.
        assert len(batcher._passes) == 2
        last = asyncio.ensure_future(ask(batcher, job(process.info, 5)))
        await asyncio.sleep(0.1)
        assert len(batcher._passes) == 2
        os.kill(child, signal.SIGCONT)
        jobs = await asyncio.gather(first, *others, last)
        assert [len(one.result()[0]) for one in jobs] == [3, 4, 4, 4, 4, 4, 5]
        # A pass begins when the one before it ends: no time counts twice.
        assert all(0 < one.seconds < 10 for one in jobs)
        assert batcher._passes == []


@in_a_loop
async def test_answers_that_overtake_each_other_count_in_the_order_of_their_passes(
    model: LoadedModel,
) -> None:
    class Overtaking:
        """The first pass is answered once the second one is."""

        passes_at_once = 2
        info = model.info
        calls = 0
        second_answered = threading.Event()

        def score(self, windows: Sequence[Window]) -> list[NDArray[np.float32]]:
            self.calls += 1
            first = self.calls == 1
            if first:
                self.second_answered.wait(10)
                time.sleep(0.05)
            scores = model.score(windows)
            if not first:
                self.second_answered.set()
            return scores

    async with started(Worker(Overtaking())) as batcher:
        first = asyncio.ensure_future(ask(batcher, job(model, 4)))
        while not batcher._passes:  # noqa: ASYNC110 - as below
            await asyncio.sleep(0.01)
        jobs = await asyncio.gather(first, ask(batcher, job(model, 3)))
        assert all(0 < one.seconds < 10 for one in jobs)
        assert 0 < batcher._pace.factor(time.monotonic()) < 1e4


@in_a_loop
async def test_a_model_that_dies_fails_its_passes_and_comes_back(tmp_path: Path) -> None:
    async with stopped_process(tmp_path) as (process, child, batcher):
        tasks = []
        for passes in (1, 2):
            tasks.append(asyncio.ensure_future(ask(batcher, job(process.info, 4))))
            while len(batcher._passes) < passes:  # noqa: ASYNC110 - as below
                await asyncio.sleep(0.01)
        os.kill(child, signal.SIGKILL)
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(answer, Job | ApiError) for answer in answers)
        while batcher.problem is not None:  # noqa: ASYNC110 - that it is polled is the point
            await asyncio.sleep(0.05)
        await ask(batcher, job(process.info, 4))


@in_a_loop
async def test_a_list_that_takes_too_long_alone_is_no_overload(model: LoadedModel) -> None:
    now = 100.0
    slow = Speed(per_pass=1, per_window=0, per_unit=1e-9)
    async with started(Worker(model), speed=slow, clock=lambda: now) as batcher:
        with pytest.raises(DeadlineExceededError, match=r"alone the list takes 2.00 seconds"):
            await ask(batcher, job(model, 6, deadline=101.9))
        with pytest.raises(DeadlineExceededError):
            batcher.refuse_hopeless(99.9)
        await ask(batcher, job(model, 6, deadline=102.1))


@in_a_loop
async def test_a_window_that_has_become_hopeless_is_not_computed(model: LoadedModel) -> None:
    worker = FaultyWorker(model)
    now = 100.0
    async with started(worker, clock=lambda: now) as batcher:
        late = job(model, 4, deadline=101)
        with batcher.admit(late):
            now = 101.0
            with pytest.raises(DeadlineExceededError):
                await batcher.score(late)
        assert worker.passes == []


@in_a_loop
async def test_the_pace_is_learnt_from_the_passes(model: LoadedModel) -> None:
    """A device that is a thousand times as slow as it was when it was measured."""
    measured = measured_speed(model)
    quick = Speed(*(seconds / 1000 for seconds in dataclasses.astuple(measured)))
    async with started(Worker(model), speed=quick) as batcher:
        with batcher.admit(job(model, 4)):
            first = batcher.wait_seconds
            for seed in range(20):
                await ask(batcher, job(model, 4, seed))
            assert batcher.wait_seconds > 10 * first


@in_a_loop
async def test_closing_answers_who_still_waits(model: LoadedModel) -> None:
    async with started(Worker(model)) as batcher:
        waiting = [asyncio.ensure_future(ask(batcher, job(model, 40))) for _ in range(4)]
        await asyncio.sleep(0)
        await batcher.close()
        for answer in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(answer, ApiError)
            assert answer.code == "shutting_down"
        with pytest.raises(ApiError, match="shutting down"):
            await ask(batcher, job(model, 2))


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=8),
    cancelled=st.sets(st.integers(0, 7)),
    failing=st.frozensets(st.integers(1, 12), max_size=6),
    pauses=st.lists(st.integers(0, 3), min_size=8, max_size=8),
    close_early=st.booleans(),
)
@in_a_loop
async def test_every_request_ends_under_any_order_of_events(
    model: LoadedModel,
    sizes: list[int],
    cancelled: set[int],
    failing: frozenset[int],
    pauses: list[int],
    close_early: bool,
) -> None:
    worker = FaultyWorker(model, failing)
    async with started(worker, max_queue_tokens=300) as batcher:
        tasks = []
        for n, size in enumerate(sizes):
            tasks.append(asyncio.ensure_future(ask(batcher, job(model, size, n))))
            for _ in range(pauses[n]):
                await asyncio.sleep(0)
            if n in cancelled:
                tasks[n // 2].cancel()
        if close_early:
            await batcher.close()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        for size, answer in zip(sizes, answers, strict=True):
            if isinstance(answer, Job):
                assert sorted(answer.result()[0].tolist()) == list(range(size))
            else:
                assert isinstance(answer, ApiError | asyncio.CancelledError)
        assert not batcher._answers
        assert batcher._queue.tokens == 0
