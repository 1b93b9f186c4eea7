"""Access by keys: one allows everything, one only re-ranking and reading."""

from __future__ import annotations

import secrets
from typing import Annotated

from fastapi import Depends, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import SecretStr

from service.api.errors import ForbiddenError, UnauthorizedError
from service.state import State
from service.watch.metrics import REJECTED

_bearer = HTTPBearer(
    auto_error=False,
    description="`LOCORE_API_KEY` may do everything, `LOCORE_READ_KEY` may re-rank and read. A "
    "service without keys asks for none.",
)
_Credentials = Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]


async def reader(state: State, credentials: _Credentials) -> None:
    """Raises UnauthorizedError unless the request carries a key, where one is set."""
    settings = state.settings
    if settings.api_key is not None and not _is_one_of(
        credentials, settings.api_key, settings.read_key
    ):
        REJECTED.labels("unauthorized").inc()
        raise UnauthorizedError("this service requires `Authorization: Bearer KEY`")


async def writer(
    state: State, credentials: _Credentials, _: Annotated[None, Depends(reader)]
) -> None:
    """Raises UnauthorizedError like `reader`, and ForbiddenError for the reading key."""
    if state.settings.api_key is not None and not _is_one_of(credentials, state.settings.api_key):
        REJECTED.labels("forbidden").inc()
        raise ForbiddenError("this key may only re-rank and read")


def _is_one_of(credentials: HTTPAuthorizationCredentials | None, *keys: SecretStr | None) -> bool:
    token = "" if credentials is None else credentials.credentials.strip()
    # All keys are compared, each in constant time.
    matches = [
        secrets.compare_digest(token.encode(), key.get_secret_value().encode())
        for key in keys
        if key is not None
    ]
    return any(matches)
