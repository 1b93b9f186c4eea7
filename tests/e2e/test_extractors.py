"""Which extractor a service has: its checkpoint's, another, or none."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.e2e.picture_requests import PICTURES, QUERY, in_json, register, rerank
from tests.e2e.service import code_of, running
from tests.pictures import EXTRACTOR
from tests.processes import CHILD, children


def test_a_service_without_an_extractor(checkpoint: Path, tmp_path: Path) -> None:
    """By its setting, or by a checkpoint that was made with one that is not here; `/extract` may
    be used with the key for reading."""
    for extractor, why in (("none", "LOCORE_EXTRACTOR is none"), ("checkpoint", "made-up")):
        data = tmp_path / extractor
        keys = {"api_key": "all", "read_key": "some"}
        with running(checkpoint, data, port=None, extractor=extractor, **keys) as service:
            assert code_of(service.http.post("/extract", json={"image": in_json(QUERY)}))[0] == 401
            service.http.headers["Authorization"] = "Bearer some"
            answers = [
                service.http.post("/extract", json={"image": in_json(QUERY)}),
                rerank(service, {"image": in_json(QUERY)}),
            ]
            service.http.headers["Authorization"] = "Bearer all"
            answers.append(register(service, PICTURES))
            for answer in answers:
                assert code_of(answer) == (501, "no_extractor")
                assert why in answer.json()["error"]["message"]
            assert children(service.process.pid, CHILD) == []


def test_another_extractor_by_its_name(checkpoint: Path, tmp_path: Path) -> None:
    """Its version is known once it is there; the queue has a bound."""
    with running(checkpoint, tmp_path, extractor=EXTRACTOR, max_queued_pictures=1) as service:
        served = {"name": EXTRACTOR, "version": None}
        assert service.http.get("/info").json()["extractor"] == served
        with ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(register, service, PICTURES) for _ in range(4)]
            answers = [each.result() for each in asked]
        refused = [answer for answer in answers if not answer.is_success]
        assert {code_of(answer) for answer in refused} == {(429, "overloaded")}
        assert all(int(answer.headers["Retry-After"]) > 0 for answer in refused)
        assert 1 <= len(refused) <= 3
        rejected = 'locore_extraction_rejected_total{reason="queue_full"}'
        assert service.metric(rejected) == len(refused)
        assert service.http.get("/info").json()["extractor"]["version"]
        assert service.metric("locore_extraction_duration_seconds_count") > 0
