"""The cursor of a listing in pages."""

from __future__ import annotations

import base64

from service.api.errors import UnprocessableError


def encode_cursor(after: str | None) -> str | None:
    return None if after is None else base64.urlsafe_b64encode(after.encode()).decode()


def decode_cursor(cursor: str | None) -> str | None:
    """Raises UnprocessableError for what `encode_cursor` did not make."""
    if cursor is None:
        return None
    try:
        return base64.b64decode(cursor, altchars=b"-_", validate=True).decode()
    except ValueError:
        raise UnprocessableError("cursor: not one of ours", field="cursor") from None
