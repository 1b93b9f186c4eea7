"""Requests that schemathesis makes of the OpenAPI document, good and bad, sent to a service."""

from __future__ import annotations

import contextlib
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    response_schema_conformance,
    status_code_conformance,
)

from tests.e2e.service import RunningService


def no_defect(
    context: schemathesis.CheckContext,
    response: schemathesis.Response,
    case: schemathesis.Case[Any],
) -> bool | None:
    """A request may ask for an answer within a millisecond, and a service may have no extractor."""
    if response.status_code in (501, 504):
        return None
    return schemathesis.checks.not_a_server_error(context, response, case)


CHECKS = [
    no_defect,
    status_code_conformance,
    response_schema_conformance,
]


def fuzz(service: RunningService, examples: int) -> int:
    """How many requests were answered as the document says. Raises AssertionError."""
    document = service.http.get("/openapi.json").json()
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=service.url)
    sent = 0
    for result in schema.get_all_operations():
        assert isinstance(result, Ok), result
        operation = result.ok()
        for mode in schemathesis.GenerationMode:

            @settings(
                max_examples=examples,
                deadline=None,
                database=None,
                derandomize=True,
                phases=[Phase.explicit, Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def ask(case: schemathesis.Case[Any]) -> None:
                nonlocal sent
                case.call_and_validate(checks=CHECKS)
                sent += 1

            # There is nothing bad to send where nothing may be sent.
            with contextlib.suppress(Unsatisfiable):
                ask()
    return sent
