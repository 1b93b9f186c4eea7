"""What monitors, browsers, proxies and other sites ask of the service."""

from __future__ import annotations

import http.server
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from locore_client import Client, ClientError
from model.descriptors import ImageDescriptors
from tests.e2e.service import RunningService, code_of, running

FRIEND = "https://shop.example"
WRITER, READER = {"Authorization": "Bearer all"}, {"Authorization": "Bearer some"}
IMAGE = {"images": [{"id": "i1", "descriptors": [[1.0] * 8]}], "collection": "web"}


@pytest.fixture(scope="module")
def keyed(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    settings: dict[str, Any] = {
        # As a secret made from a file has it.
        "api_key": "all\n",
        "read_key": "some",
        "root_path": "/tools/locore",
        "allowed_origins": FRIEND,
        "log_format": "text",
    }
    with running(checkpoint, tmp_path_factory.mktemp("keyed"), **settings) as started:
        yield started


@pytest.mark.parametrize(
    "path", ["/", "/health/live", "/health/ready", "/metrics", "/gallery", "/info", "/docs"]
)
def test_head_is_get_without_a_body(service: RunningService, path: str) -> None:
    head, get = service.http.head(path), service.http.get(path)
    assert (head.status_code, head.content) == (get.status_code, b"")
    assert head.headers["Content-Type"] == get.headers["Content-Type"]


def test_head_of_what_is_not_there_and_of_what_is_posted(service: RunningService) -> None:
    assert service.http.head("/gallery/none").status_code == 404
    assert service.http.head("/rerank").status_code == 405
    assert '"method": "HEAD"' in service.log


@pytest.mark.parametrize("ending", ["%0a", "%0d", "%00", "%1b", "%e2%80%a8", "%7f"])
def test_a_path_that_ends_in_no_letter_leads_nowhere(service: RunningService, ending: str) -> None:
    assert service.http.post("/gallery", json=IMAGE).is_success
    for method, path in (
        ("DELETE", "/gallery/i1"),
        ("GET", "/gallery/i1"),
        ("GET", "/health/live"),
        ("POST", "/rerank"),
    ):
        response = service.http.request(method, path + ending, params={"collection": "web"})
        assert code_of(response) == (404, "not_found"), path
    for collection in ("web\n", "\nweb"):
        wrong = service.http.delete("/gallery/i1", params={"collection": collection})
        assert code_of(wrong) == (422, "validation_error")
    assert service.http.get("/gallery/i1", params={"collection": "web"}).is_success


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "x"]
)
def test_415_of_what_a_foreign_page_may_send_unasked(service: RunningService, kind: str) -> None:
    for path in ("/gallery", "/rerank", "/page/shortlist"):
        response = service.http.post(path, content=b"{}", headers={"Content-Type": kind})
        if path != "/page/shortlist":
            assert code_of(response) == (415, "unsupported_media_type")
    kinds = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert code_of(service.http.post("/gallery", content=b"{}", headers=kinds))[0] == 422


def test_a_page_of_another_site_may_not_write(service: RunningService) -> None:
    foreign = ("https://evil.example", "null", service.url + "0", "http://localhost.evil.example")
    for origin in foreign:
        for method, path in (("POST", "/gallery"), ("DELETE", "/gallery/i1"), ("POST", "/rerank")):
            headers = {"Origin": origin}
            response = service.http.request(method, path, headers=headers)
            assert code_of(response) == (403, "forbidden"), (origin, path)
    ours = {"Origin": service.url}
    assert service.http.post("/gallery", json=IMAGE, headers=ours).is_success
    # Behind a proxy that changes Host the browser itself tells whose page it is.
    proxied = {"Origin": "https://tools.example", "Sec-Fetch-Site": "same-origin"}
    assert service.http.post("/gallery", json=IMAGE, headers=proxied).is_success
    crossing = {"Origin": service.url, "Sec-Fetch-Site": "cross-site"}
    assert service.http.post("/gallery", json=IMAGE, headers=crossing).status_code == 403


def test_an_allowed_origin_may(keyed: RunningService) -> None:
    headers = {"Origin": FRIEND, **WRITER}
    answer = keyed.http.post("/gallery", json=IMAGE, headers=headers)
    assert answer.is_success
    assert answer.headers["Access-Control-Allow-Origin"] == FRIEND
    asked = keyed.http.options(
        "/rerank",
        headers={
            "Origin": FRIEND,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization, content-type",
        },
    )
    assert asked.status_code == 200
    other = keyed.http.post("/gallery", json=IMAGE, headers={"Origin": "https://x.example"})
    assert code_of(other) == (403, "forbidden")


def test_the_key_for_reading_reranks_and_reads_and_no_more(
    keyed: RunningService, query: ImageDescriptors
) -> None:
    http = keyed.http
    assert http.post("/gallery", json=IMAGE, headers=WRITER).is_success
    assert http.get("/gallery", headers=READER).is_success
    body = {
        "collection": "web",
        "query": {"descriptors": [[1.0] * 8]},
        "gallery_ids": ["i1"],
    }
    assert http.post("/rerank", json=body, headers=READER).is_success
    of_web = {"collection": "web"}
    assert http.get("/gallery/i1", headers=READER, params=of_web).is_success
    assert code_of(http.post("/gallery", json=IMAGE, headers=READER)) == (403, "forbidden")
    refused = http.delete("/gallery/i1", headers=READER, params=of_web)
    assert code_of(refused) == (403, "forbidden")
    assert code_of(http.get("/gallery")) == (401, "unauthorized")
    assert code_of(http.post("/gallery", json=IMAGE)) == (401, "unauthorized")
    with Client(keyed.url, "some") as client:
        assert client.page(collection="web").ids == ["i1"]
        with pytest.raises(ClientError) as error:
            client.delete("i1", collection="web")
        assert error.value.status == 403
    assert http.delete("/gallery/i1", headers=WRITER, params=of_web).status_code == 204


def test_the_document_names_the_key_and_docs_ask_nobody_else(keyed: RunningService) -> None:
    document = keyed.http.get("/openapi.json").json()
    assert document["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    for path, operations in document["paths"].items():
        for operation in operations.values():
            open_to_all = path.startswith(("/health", "/metrics", "/info"))
            assert ("security" in operation) != open_to_all, path
    page = keyed.http.get("/docs")
    assert "unsafe-eval" not in page.headers["Content-Security-Policy"]
    addresses = re.findall(r'(?:href|src)="([^"]+)"', page.text)
    assert len(addresses) >= 4
    for address in addresses:
        assert ":" not in address
        assert not address.startswith("/")
        assert keyed.http.get(f"/{address}").is_success, address
    assert code_of(keyed.http.get("/docs/redoc.standalone.js")) == (404, "not_found")


@contextmanager
def proxy(upstream: str, prefix: str) -> Iterator[str]:
    """A reverse proxy that takes the prefix away."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def _pass_on(self) -> None:
            if not self.path.startswith(prefix + "/"):
                self.send_error(404)
                return
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            kind = {k: v for k, v in self.headers.items() if k in ("Content-Type", "Authorization")}
            path = self.path.removeprefix(prefix)
            answer = httpx.request(self.command, upstream + path, content=body, headers=kind)
            self.send_response(answer.status_code)
            self.send_header("Content-Type", answer.headers.get("Content-Type", ""))
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_GET = do_POST = do_DELETE = _pass_on  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}{prefix}/"
    finally:
        server.shutdown()
        server.server_close()


def test_page_and_docs_work_under_a_prefix(keyed: RunningService) -> None:
    with proxy(keyed.url, "/tools/locore") as url:
        for page in ("", "docs"):
            text = httpx.get(url + page).text
            addresses = re.findall(r'(?:href|src)="([^"#]+)"', text)
            assert addresses
            for address in addresses:
                answer = httpx.get(httpx.URL(url + page).join(address))
                assert answer.is_success, address
        scripts = Path(__file__).parents[2] / "service/page/static"
        for script in scripts.glob("*.js"):
            assert not re.search(
                r"""["`'(]/(page|rerank|gallery|docs|openapi)""", script.read_text()
            )
        document = httpx.get(url + "openapi.json").json()
        assert document["servers"] == [{"url": "/tools/locore"}]
        assert httpx.get(url + "gallery", headers=READER).is_success
    # A proxy may leave the prefix where it is.
    answer = keyed.http.get("/tools/locore/gallery", headers=READER)
    assert answer.is_success
    assert keyed.metric('locore_requests_total{endpoint="gallery",status="200"}') >= 2
    assert keyed.metric('locore_requests_total{endpoint="docs",status="200"}') >= 2


def test_what_moves_a_terminals_cursor_does_not_reach_the_log(keyed: RunningService) -> None:
    for path in ("/x%1b[31mred", "/gallery/%9b31m", "/line%0abreak"):
        keyed.http.get(path, headers=READER)
    assert keyed.http.get("/nothing", headers={"X-Request-ID": "a"}).status_code == 404
    log = keyed.log
    assert "x\\x1b[31mred" in log
    assert all(c.isprintable() or c == "\n" for c in log)
    assert not re.search(r"^break", log, re.MULTILINE)


def test_a_scrape_does_not_count_itself(service: RunningService) -> None:
    assert service.metric("locore_inflight_requests") == 0


def test_ordinary_errors_leave_no_trace_in_the_log(service: RunningService) -> None:
    """Of a re-ranking whose client goes just when its error comes."""
    body = b'{"query":{"descriptors":[[1,2,3,4,5,6,7,8]]},"gallery_ids":["none"]}'
    head = b"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    host, port = service.url.removeprefix("http://").split(":")
    for n in range(150):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(head + body)
            time.sleep(0.001 * (n % 15))
    assert service.http.get("/health/live").is_success
    time.sleep(0.5)
    assert "never retrieved" not in service.log
