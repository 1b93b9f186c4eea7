"""What the client says and what the service takes are the same."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args

import numpy as np

from locore_client import ERRORS, ClientError, NewImage, calls, contract
from locore_client.bodies import RerankFields
from locore_client.splitting import parts
from model.config import RerankDefaults
from model.windows import DIRECTIONS
from service.api.schemas import RegisterRequest, RerankRequest
from tests.factories import image, tiny_config

DOCS = Path(__file__).parents[3] / "docs"
QUERY = image(np.random.default_rng(0), tiny_config())


def test_every_code_of_the_contract_has_a_class_of_its_own() -> None:
    table = (DOCS / "api.md").read_text().split("## Errors")[1].split("## ")[0]
    rows = [line.split("|")[2] for line in table.splitlines() if line.startswith("| ")]
    codes = set(re.findall(r"`(\w+)`", " ".join(rows)))
    assert len(codes) == 28
    assert codes == set(ERRORS)
    assert len(set(ERRORS.values())) == len(ERRORS)
    assert all(issubclass(kind, ClientError) for kind in ERRORS.values())


def test_a_re_ranking_has_the_fields_of_the_contract() -> None:
    own = {"collection", "query", "gallery_ids"}
    assert set(RerankFields.__annotations__) == set(RerankRequest.model_fields) - own
    scores = np.array([0.5, 0.25], np.float32)
    how = calls.HowToRerank(global_scores=scores, alpha=float(np.float32(0.5)), timeout=3.0)
    body = calls.rerank(QUERY, ["a", "b"], "default", how).body
    assert body is not None
    sent = RerankRequest.model_validate_json(body(2.5))
    assert (sent.global_scores, sent.alpha, sent.timeout_ms) == ([0.5, 0.25], 0.5, 2_500)


def test_a_registration_is_one_that_the_service_takes() -> None:
    images = {"a": NewImage(QUERY, {"url": "https://example.org/ü.jpg"}), "b": NewImage(QUERY)}
    (part,) = parts(images, "shop", 60, 10, 1 << 20)
    sent = RegisterRequest.model_validate_json(part.body)
    assert [one.metadata for one in sent.images] == [images["a"].metadata, None]
    assert (sent.collection, sent.ttl_seconds) == ("shop", 60)


def test_what_the_model_fixes_is_told_by_the_same_names() -> None:
    assert set(get_args(contract.Direction)) == set(DIRECTIONS)
    answer, config = contract.RerankDefaults, RerankDefaults
    assert set(answer.model_fields) == set(config.model_fields)


def test_the_longest_timeout_is_that_of_the_document() -> None:
    schemas = json.loads((DOCS / "openapi.json").read_text())["components"]["schemas"]
    bounds = schemas["RerankRequest"]["properties"]["timeout_ms"]
    assert (bounds["minimum"], bounds["maximum"]) == (1, contract.MAX_TIMEOUT_MS)
