"""Writers and readers of a service that is killed, and whose store is: what was acknowledged is
what is read, at once and for ever. All chance comes from a seed."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from locore_client import packed_image, rerank_body
from tests.e2e.service import RunningService, free_port, running, wait_until_ready
from tests.factories import image, tiny_config

WRITERS, READERS, IDS_OF_A_WRITER = 3, 3, 6
KINDS = ("store", "service", "socket", "both")
EXPECTED = {200, 204, 404, 429, 503, 504}
"""A store that is away is no defect: never a 500."""

QUERY = image(np.random.default_rng(0), tiny_config())
State = frozenset[int | None]
"""Versions that an image may have; None if it may be gone."""


class Ledger:
    """What each image may be. One writer changes an image; anybody may ask."""

    def __init__(self) -> None:
        self._states: dict[str, list[State]] = {}
        self._lock = threading.Lock()

    def now(self, image_id: str) -> State:
        return self._states.get(image_id, [frozenset({None})])[-1]

    def note(self, image_id: str, state: State) -> None:
        with self._lock:
            self._states.setdefault(image_id, [frozenset({None})]).append(state)

    def moment(self) -> dict[str, int]:
        with self._lock:
            return {image_id: len(states) for image_id, states in self._states.items()}

    def since(self, image_id: str, moment: dict[str, int]) -> State:
        """All that it may have been since then."""
        with self._lock:
            states = self._states.get(image_id, [frozenset({None})])
        return frozenset().union(*states[max(moment.get(image_id, 1) - 1, 0) :])

    def ids(self) -> list[str]:
        return sorted(self._states)


@dataclass
class Report:
    """What was done; `faults` must be empty."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


class Crasher:
    def __init__(self, checkpoint: Path, folder: Path, seed: int) -> None:
        self.report = Report()
        self._seed = seed
        self._checkpoint = checkpoint
        self._folder = folder
        self._port = free_port()
        self._ledger = Ledger()
        self._over = threading.Event()

    def run(self, seconds: float) -> Report:
        """At least one kill of each kind, however long that takes."""
        with ExitStack() as services, ThreadPoolExecutor(WRITERS + READERS) as pool:
            service = self._start(services)
            work = [pool.submit(self._write_on, number) for number in range(WRITERS)]
            work += [pool.submit(self._read_on, number) for number in range(READERS)]
            rng, kinds = random.Random(self._seed), list(KINDS)
            until = time.monotonic() + seconds
            try:
                while kinds or time.monotonic() < until:
                    self._over.wait(rng.uniform(0.5, 2.0))
                    kind = kinds.pop(0) if kinds else rng.choice(KINDS)
                    self.report.counts[f"kills of {kind}"] += 1
                    self._kill(kind, service)
                    if kind in ("service", "both"):
                        service = self._start(services)
            finally:
                self._over.set()
            for done in work:
                done.result()
            wait_until_ready(service)
            self._check_all(service.http)
        return self.report

    def _start(self, services: ExitStack) -> RunningService:
        services.close()
        return services.enter_context(
            running(self._checkpoint, self._folder, port=self._port, log_format="text")
        )

    def _kill(self, kind: str, service: RunningService) -> None:
        store = self._folder / "valkey"
        with suppress(FileNotFoundError, ValueError, ProcessLookupError):
            if kind == "socket":
                (store / "valkey.sock").unlink()
            if kind in ("store", "both"):
                os.kill(int((store / "valkey.pid").read_text()), signal.SIGKILL)
        if kind in ("service", "both"):
            service.process.kill()
            service.process.wait()

    def _write_on(self, number: int) -> None:
        rng = random.Random(f"{self._seed} writer {number}")
        ids = [f"w{number}-{place}" for place in range(IDS_OF_A_WRITER)]
        version = number
        with self._http() as http:
            while not self._over.is_set():
                version += WRITERS
                chosen = rng.sample(ids, rng.randint(1, len(ids)))
                if rng.random() < 0.3:
                    self._write(http, chosen[:1], None)
                else:
                    self._write(http, chosen, version)

    def _write(self, http: httpx.Client, ids: list[str], version: int | None) -> None:
        """From when it is asked for it may be so; from when it is acknowledged it is."""
        before = self._ledger.now(ids[0])
        for image_id in ids:
            self._ledger.note(image_id, self._ledger.now(image_id) | {version})
        if version is None:
            status = self._ask(http, "DELETE", f"/gallery/{ids[0]}")[0]
            if status == 404 and None not in before:
                self.report.faults.append(f"{ids[0]} is lost: not there to be deleted")
        else:
            packed = packed_image(image(np.random.default_rng(version), tiny_config()))
            images = [{"id": image_id, **packed, "metadata": {"n": version}} for image_id in ids]
            status = self._ask(http, "POST", "/gallery", json={"images": images})[0]
        if status in (200, 204, 404):
            for image_id in ids:
                self._ledger.note(image_id, frozenset({version}))
            self.report.counts["acknowledged writes"] += 1

    def _read_on(self, number: int) -> None:
        rng = random.Random(f"{self._seed} reader {number}")
        with self._http() as http:
            while not self._over.is_set():
                ids = self._ledger.ids()
                if not ids:
                    continue
                chosen = rng.sample(ids, rng.randint(1, len(ids)))
                moment = self._ledger.moment()
                versions = self._read(http, chosen, rng.choice((20, 60_000, 60_000)))
                for image_id, version in versions.items():
                    self._compare(image_id, version, self._ledger.since(image_id, moment))
                    self.report.counts["images read"] += 1

    def _read(self, http: httpx.Client, ids: list[str], timeout_ms: int) -> dict[str, int | None]:
        """Their versions, from the cache where it has them; nothing if no answer comes."""
        options = {"on_missing": "skip", "return_metadata": True, "timeout_ms": timeout_ms}
        body = rerank_body(QUERY, ids, "default") | options
        status, answer = self._ask(http, "POST", "/rerank", json=body)
        if status == 404:
            return dict.fromkeys(ids)
        if status != 200:
            return {}
        there = {result["id"]: result["metadata"]["n"] for result in answer["results"]}
        return dict.fromkeys(ids) | there

    def _compare(self, image_id: str, version: int | None, state: State) -> None:
        if version not in state:
            self.report.faults.append(f"{image_id} has version {version}, not of {set(state)}")

    def _check_all(self, http: httpx.Client) -> None:
        """What is in the store, image by image, and that the list agrees with it."""
        listed = set(self._ask(http, "GET", "/gallery")[1]["ids"])
        for image_id in self._ledger.ids():
            status, answer = self._ask(http, "GET", f"/gallery/{image_id}")
            version = answer["metadata"]["n"] if status == 200 else None
            self._compare(image_id, version, self._ledger.now(image_id))
            if (version is not None) != (image_id in listed):
                self.report.faults.append(f"{image_id}: the list and the store differ")
            self.report.counts["images checked at the end"] += 1

    def _http(self) -> httpx.Client:
        return httpx.Client(base_url=f"http://127.0.0.1:{self._port}", timeout=60)

    def _ask(self, http: httpx.Client, method: str, path: str, **body: Any) -> tuple[int, Any]:
        """The status, 0 if no answer came, and the answer."""
        try:
            response = http.request(method, path, **body)
        except httpx.HTTPError:
            self._over.wait(0.1)
            return 0, None
        if response.status_code not in EXPECTED:
            self.report.faults.append(f"{method} {path}: {response.status_code} {response.text}")
        return response.status_code, response.json() if response.content else None
