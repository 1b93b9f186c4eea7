"""Health tells the truth about the worker, and so do the endpoints that need it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx

from service.app import create_app
from service.batching import worker
from service.settings import Settings
from service.state import ServiceState
from tests.factories import load_tiny


def test_a_broken_or_stuck_worker_is_not_ready(tmp_path: Path) -> None:
    app = create_app(Settings(data_dir=tmp_path), load_tiny(tmp_path))

    async def work() -> None:
        async with app.router.lifespan_context(app):
            state: ServiceState = app.state.service
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://x") as http:

                async def codes() -> set[tuple[int, str]]:
                    answers = [
                        await http.get("/health/ready"),
                        await http.post("/rerank", json={}),
                        await http.post("/gallery", json={}),
                    ]
                    return {(a.status_code, a.json()["error"]["code"]) for a in answers}

                assert (await http.get("/health/ready")).json() == {"status": "ok"}
                state.worker.problem = "the model fails: RuntimeError"
                assert await codes() == {(503, "not_ready")}
                state.worker.problem = None
                state.worker._busy_since = -worker.STUCK_SECONDS
                assert await codes() == {(503, "not_ready")}
                state.worker._busy_since = None
                state.worker.warm = False
                assert await codes() == {(503, "not_ready")}
                state.worker.warm = True
                await state.batcher.close()
                assert await codes() == {(503, "not_ready")}
                assert (await http.get("/health/live")).status_code == 200

    asyncio.run(work())
