"""openapi.json, docs/api.md and the code say the same."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from prometheus_client import Counter, Gauge, Histogram

from locore_client.contract import RerankResponse
from model.checkpoint import LoadedModel
from service.api import errors
from service.api.schemas import MAX_METADATA_BYTES, MAX_SHORTLIST, Info, RerankRequest
from service.api.sizes import MAX_DIM, MIN_DIM
from service.app import create_app
from service.routes.info import describe
from service.settings import Settings
from service.watch import metrics
from tests.factories import load_tiny

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "api.md").read_text()


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    model: LoadedModel = load_tiny(tmp_path_factory.mktemp("model"))
    return create_app(Settings(), model)


def test_the_committed_document_is_that_of_the_code(app: FastAPI) -> None:
    """After a change that is meant: `make openapi`."""
    committed = json.loads((DOCS / "openapi.json").read_text())
    assert committed == json.loads(json.dumps(app.openapi()))


def test_every_reference_of_the_document_leads_somewhere(app: FastAPI) -> None:
    document = app.openapi()
    references = set(re.findall(r'"\$ref": "#/components/schemas/([^"]+)"', json.dumps(document)))
    assert references
    assert references <= set(document["components"]["schemas"])


def test_the_page_has_every_path(app: FastAPI) -> None:
    for path, operations in app.openapi()["paths"].items():
        as_documented = path.replace("{image_id}", "{id}")
        for method in operations:
            assert re.search(rf"`({method.upper()} )?{re.escape(as_documented)}[?`]", PAGE), (
                method,
                path,
            )


def test_the_code_has_every_path_of_the_page(app: FastAPI) -> None:
    served = {
        (m.upper(), path) for path, methods in app.openapi()["paths"].items() for m in methods
    }
    named = set(re.findall(r"`(GET|POST|PUT|DELETE) (/[\w/.{}]*)", PAGE))
    # These three are pages for people; tests/e2e/test_faults.py asks for them.
    documents = {("GET", "/"), ("GET", "/docs"), ("GET", "/openapi.json")}
    assert documents <= named
    assert {(m, path.replace("{id}", "{image_id}")) for m, path in named - documents} == served


def test_an_empty_key_is_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCORE_API_KEY", "")
    assert Settings().api_key is None


def all_subclasses(kind: type[errors.ApiError]) -> set[type[errors.ApiError]]:
    return {kind}.union(*(all_subclasses(sub) for sub in kind.__subclasses__()))


def test_the_page_has_every_error_code_with_its_status() -> None:
    rows = {
        status: set(re.findall(r"`(\w+)`", codes))
        for status, codes in re.findall(r"^\| ([\d, ]+) \| ([^|]+) \|", PAGE, re.MULTILINE)
    }
    listed = {
        (s.strip(), code)
        for statuses, codes in rows.items()
        for s in statuses.split(",")
        for code in codes
    }
    for kind in all_subclasses(errors.ApiError) - {errors.ClientDisconnectedError}:
        assert (str(kind.status), kind.code) in listed, kind


def test_the_page_has_every_metric_and_no_other() -> None:
    block = PAGE.split("## Metrics")[1]
    named = set(re.findall(r"`(locore_\w+)", block))
    kinds = (Counter, Gauge, Histogram)
    collectors = [m for m in vars(metrics).values() if isinstance(m, kinds)]
    names = set()
    for collector in collectors:
        (described,) = collector.describe()
        names.add(described.name + ("_total" if described.type == "counter" else ""))
    assert named == names


def test_the_page_has_the_settings() -> None:
    block = PAGE.split("## Settings")[1].split("## Metrics")[0]
    named = set(re.findall(r"`LOCORE_(\w+)`", block))
    assert named <= {name.upper() for name in Settings.model_fields}
    for name, default in (("PORT", 8000), ("HOST", "127.0.0.1")):
        assert f"`LOCORE_{name}` ({default})" in block
        assert Settings.model_fields[name.lower()].default == default


def test_the_settings_page_has_every_setting() -> None:
    page = (DOCS / "settings.md").read_text()
    rows = dict(re.findall(r"^\| `LOCORE_(\w+)` \| ([^|]+) \|", page, re.MULTILINE))
    assert set(rows) == {name.upper() for name in Settings.model_fields}
    for name, field in Settings.model_fields.items():
        if isinstance(field.default, str | int):
            assert rows[name.upper()].strip("`") == (str(field.default) or "none")


def test_the_pages_numbers_are_those_of_the_code() -> None:
    assert f"1 to {MAX_SHORTLIST:,} ids" in PAGE
    assert f"{MAX_METADATA_BYTES // 1024} KiB" in PAGE
    assert f"from {MIN_DIM} to {MAX_DIM:,} numbers" in PAGE
    fields = Settings.model_fields
    assert f"({fields['max_payload_bytes'].default >> 20} MiB)" in PAGE
    assert f"({fields['max_images_per_request'].default})" in PAGE


def example(heading: str, place: int) -> dict[str, Any]:
    section = PAGE.split(heading)[1].split("\n## ")[0]
    text = re.findall(r"```json\n(.*?)```", section, re.DOTALL)[place]
    value: dict[str, Any] = json.loads(text.replace("ARRAY", "[[1.0]]"))
    return value


def test_the_pages_examples_fit_the_schemas() -> None:
    request = example("## Re-rank", 0)
    RerankRequest.model_validate(request)
    assert set(request) == set(RerankRequest.model_fields)
    answer = example("## Re-rank", 1)
    RerankResponse.model_validate(answer)
    assert set(answer) == set(RerankResponse.model_fields)


def test_the_pages_example_of_what_is_served_has_the_fields_and_limits(tmp_path: Path) -> None:
    example_shown = example("## What is served", 0)
    Info.model_validate(example_shown)
    served = describe(load_tiny(tmp_path).info, Settings()).model_dump(by_alias=True)
    parts = {name: set(part) for name, part in served.items() if isinstance(part, dict)}
    assert {name: set(example_shown[name]) for name in parts} == parts
    assert set(example_shown) == set(served)
    assert example_shown["limits"] == served["limits"] | {"descriptors_per_image": 48}
