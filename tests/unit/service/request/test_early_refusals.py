"""Early refusals, on connections without a socket: bytes in, and what is written to them."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
from starlette.types import Receive, Scope, Send
from uvicorn import Config
from uvicorn.server import ServerState

from service.batching.batcher import Batcher
from service.batching.speed import Speed
from service.batching.worker import Worker
from service.body.intake import Intake
from service.request import early_refusals
from service.request.arrival import ARRIVAL, INCOMING
from service.request.early_refusals import EarlyRefusals
from service.state import ServiceState
from service.watch.metrics import REQUESTS
from tests.loops import in_a_loop
from tests.unit.service.batching.jobs import job, queue

SLOW = Speed(per_pass=1.0, per_window=0.0, per_unit=0.0)
LATE = b'{"timeout_ms": 100}'
"""A list of this timeout cannot wait for a pass of SLOW; one of PATIENT can."""
PATIENT = b'{"timeout_ms": 600000}'
HELD_BYTES = 1000
MOST_REQUESTS = 3


class Written(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.data = b""
        self._closing = False

    def write(self, data: Any) -> None:
        self.data += data

    def close(self) -> None:
        self._closing = True

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


@dataclass
class Rig:
    """A connection of a service that waits a second for its device, or for nothing if it is not
    `busy`. `bodies`: those that the application has read whole; `states`: of its requests."""

    busy: bool = True
    refusal: object = None
    bodies: list[bytes] = field(default_factory=list)
    states: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        waiting = queue(speed=SLOW)
        if self.busy:
            waiting.admit(job(4))
        self.batcher = Batcher(waiting, cast(Worker, None))
        self.intake = Intake(HELD_BYTES)
        service = SimpleNamespace(
            batcher=self.batcher,
            intake=self.intake,
            settings=SimpleNamespace(root_path="/locore"),
            refusal=lambda: self.refusal,
        )
        config = Config(self.app, interface="asgi3", log_config=None, lifespan="off")
        self.connection = EarlyRefusals(
            service=lambda: cast(ServiceState, service),
            max_requests=MOST_REQUESTS,
            config=config,
            server_state=ServerState(),
            app_state={},
        )
        self.written = Written()
        self.connection.connection_made(self.written)

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.states.append(scope["state"])
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            more = message["more_body"]
        self.bodies.append(body)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    def send(self, data: bytes) -> None:
        self.connection.data_received(data)

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    @property
    def holds_request(self) -> bool:
        return self.connection._held_body is not None

    @property
    def holds_nothing(self) -> bool:
        """Whether all the room for bodies is free."""
        free = self.intake.hold(HELD_BYTES)
        self.intake.release(HELD_BYTES)
        return free


def request(
    body: bytes = LATE,
    *headers: str,
    line: str = "POST /rerank HTTP/1.1",
    length: int | None = None,
) -> bytes:
    size = len(body) if length is None else length
    lines = [line, "Host: locore", f"Content-Length: {size}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def answer(written: bytes) -> tuple[str, dict[str, str], Any]:
    """Status line, fields and body."""
    head, _, body = written.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    return status, dict(line.lower().split(": ", 1) for line in lines), json.loads(body)


@pytest.mark.parametrize("line", ["POST /rerank HTTP/1.1", "POST /locore/rerank HTTP/1.1"])
@in_a_loop
async def test_a_list_that_would_be_late_is_refused_as_the_application_would(line: str) -> None:
    rig = Rig()
    refusals = REQUESTS.labels("rerank", "429")
    before = refusals._value.get()
    rig.send(request(LATE, "X-Request-ID: mine", line=line))
    await rig.settle()
    status, fields, body = answer(rig.written.data)
    assert status == "HTTP/1.1 429 Too Many Requests"
    assert (fields["content-type"], fields["x-request-id"]) == ("application/json", "mine")
    assert int(fields["retry-after"]) >= 1
    assert int(fields["content-length"]) == len(json.dumps(body, separators=(",", ":")))
    assert body["error"]["code"] == "overloaded"
    assert refusals._value.get() == before + 1
    assert "connection" not in fields
    assert not rig.written.is_closing()
    assert rig.holds_nothing
    assert not rig.states


@in_a_loop
async def test_the_next_request_on_the_connection_may_be_answered() -> None:
    rig = Rig()
    rig.send(request(LATE) + request(LATE) + request(PATIENT))
    await rig.settle()
    assert rig.written.data.count(b"HTTP/1.1 429") == 2
    assert rig.written.data.count(b"HTTP/1.1 204") == 1
    assert rig.bodies == [PATIENT]


@in_a_loop
async def test_a_request_more_than_may_wait_is_refused_though_it_would_be_in_time() -> None:
    rig = Rig()
    others = [asyncio.ensure_future(asyncio.sleep(60)) for _ in range(MOST_REQUESTS)]
    rig.connection.tasks.update(others)
    rig.send(request(PATIENT))
    assert answer(rig.written.data)[2]["error"]["message"] == "too many requests wait"
    rig.connection.tasks.remove(others.pop())
    rig.send(request(PATIENT))
    await rig.settle()
    assert rig.bodies == [PATIENT]


@in_a_loop
async def test_nothing_is_refused_before_an_earlier_answer() -> None:
    rig = Rig()
    rig.send(request(PATIENT) + request(LATE))
    await rig.settle()
    assert rig.bodies == [PATIENT, LATE]


@pytest.mark.parametrize(
    ("line", "header"),
    [("POST /rerank HTTP/1.1", "Connection: close"), ("POST /rerank HTTP/1.0", "X: y")],
)
@in_a_loop
async def test_a_connection_that_is_to_close_closes(line: str, header: str) -> None:
    rig = Rig()
    rig.send(request(LATE, header, line=line))
    assert answer(rig.written.data)[1]["connection"] == "close"
    assert rig.written.is_closing()


@pytest.mark.parametrize("header", ["X: y", "X-Request-ID: ?", "X-Request-ID: \xff"])
@in_a_loop
async def test_a_request_without_a_usable_id_gets_one(header: str) -> None:
    rig = Rig()
    rig.send(request(LATE, header))
    assert re.fullmatch("[0-9a-f]{32}", answer(rig.written.data)[1]["x-request-id"])


@pytest.mark.parametrize(
    ("rig", "line", "header"),
    [
        ({"busy": False}, "POST /rerank HTTP/1.1", "X: y"),
        ({"refusal": "draining"}, "POST /rerank HTTP/1.1", "X: y"),
        ({}, "PUT /rerank HTTP/1.1", "X: y"),
        ({}, "POST /gallery HTTP/1.1", "X: y"),
        ({}, "POST /rerank?x=1 HTTP/1.1", "X: y"),
        ({}, "POST /rerank HTTP/1.1", "Origin: https://elsewhere.example"),
        ({}, "POST /rerank HTTP/1.1", "Expect: 100-continue"),
        ({}, "POST /rerank HTTP/1.1", "Upgrade: h2c"),
    ],
)
@in_a_loop
async def test_the_application_decides_in_doubt(
    rig: dict[str, Any], line: str, header: str
) -> None:
    asked = Rig(**rig)
    asked.send(request(b"", header, line=line, length=len(LATE)))
    await asked.settle()
    assert len(asked.states) == 1
    assert not asked.holds_request


@in_a_loop
async def test_a_list_that_is_in_time_reaches_the_application_whole_and_counts() -> None:
    rig = Rig()
    rig.send(request(PATIENT[:5], length=len(PATIENT)))
    rig.send(PATIENT[5:10])
    await rig.settle()
    assert rig.holds_request
    assert not rig.states
    assert rig.batcher.incoming == 0
    rig.send(PATIENT[10:])
    assert rig.batcher.incoming == 1
    assert rig.connection.scope["state"][INCOMING].checked
    await rig.settle()
    assert rig.bodies == [PATIENT]
    assert rig.batcher.incoming == 0
    assert rig.holds_nothing


@in_a_loop
async def test_a_list_of_a_service_that_is_not_busy_counts_unchecked() -> None:
    rig = Rig(busy=False)
    rig.send(request(LATE))
    assert rig.batcher.incoming == 1
    assert not rig.connection.scope["state"][INCOMING].checked
    await rig.settle()
    assert (rig.bodies, rig.batcher.incoming) == ([LATE], 0)


@in_a_loop
async def test_a_deadline_that_has_passed_is_the_applications_to_tell() -> None:
    rig = Rig()
    rig.send(request(b"", length=len(LATE)))
    rig.connection.scope["state"][ARRIVAL] -= 60
    rig.send(LATE)
    await rig.settle()
    assert rig.bodies == [LATE]


@in_a_loop
async def test_a_refusal_that_begins_meanwhile_is_the_applications_to_tell() -> None:
    rig = Rig()
    rig.send(request(b"", length=len(LATE)))
    rig.refusal = "draining"
    rig.send(LATE)
    await rig.settle()
    assert rig.bodies == [LATE]


@pytest.mark.parametrize("limit", ["size", "room"])
@in_a_loop
async def test_a_body_that_is_too_large_is_handed_over(
    limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig()
    if limit == "size":
        monkeypatch.setattr(early_refusals, "_MAX_BODY_BYTES", 50)
    body = LATE + b" " * (60 if limit == "size" else HELD_BYTES)
    rig.send(request(body, length=len(body) + 1))
    assert not rig.holds_request
    rig.send(b" ")
    await rig.settle()
    assert rig.bodies == [body + b" "]
    assert rig.holds_nothing


@in_a_loop
async def test_a_body_that_takes_too_long_is_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(early_refusals, "_MAX_BODY_SECONDS", 0.0)
    rig = Rig()
    rig.send(request(LATE[:5], length=len(LATE)))
    await rig.settle()
    assert not rig.holds_request
    rig.send(LATE[5:])
    await rig.settle()
    assert rig.bodies == [LATE]
    assert rig.holds_nothing


@in_a_loop
async def test_a_shutdown_hands_over_what_is_held() -> None:
    rig = Rig()
    rig.send(request(LATE[:5], length=len(LATE)))
    rig.connection.shutdown()
    rig.send(LATE[5:])
    await rig.settle()
    assert rig.bodies == [LATE]


@pytest.mark.parametrize("sent", [LATE[:5], PATIENT])
@in_a_loop
async def test_a_client_that_leaves_leaves_nothing_behind(sent: bytes) -> None:
    rig = Rig()
    rig.send(request(sent, length=len(PATIENT)))
    rig.connection.connection_lost(None)
    assert rig.batcher.incoming == 0
    assert rig.holds_nothing
