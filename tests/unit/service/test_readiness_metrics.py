"""What the alerts read of a service that is started, drains, or whose worker fails."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx

from service.app import create_app
from service.machine.memory import memory_limit
from service.settings import Settings
from service.state import ServiceState
from tests.factories import load_tiny


def test_readiness_and_bounds_are_shown(tmp_path: Path) -> None:
    app = create_app(Settings(data_dir=tmp_path, max_queue_tokens=777), load_tiny(tmp_path))

    async def work() -> None:
        async with app.router.lifespan_context(app):
            state: ServiceState = app.state.service
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://x") as http:

                async def value(name: str) -> float:
                    lines = (await http.get("/metrics")).text.splitlines()
                    (line,) = [line for line in lines if line.startswith(f"{name} ")]
                    return float(line.split()[1])

                assert await value("locore_queue_tokens_limit") == 777
                assert await value("locore_memory_limit_bytes") == memory_limit()
                assert await value("locore_ready") == 1
                state.worker.problem = "the model fails: RuntimeError"
                assert await value("locore_ready") == 0
                state.worker.problem = None
                state.draining = True
                assert await value("locore_ready") == 0

    asyncio.run(work())
