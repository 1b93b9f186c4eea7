"""The errors of the API contract: one class and one code each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from service.api.sizes import Misfit

_MAX_FAULTS = 20
_MAX_LETTERS = 300


class ApiError(Exception):
    """An answer other than 200. Clients see `details`, so it has no paths and no tracebacks."""

    status = 500
    code = "internal"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        retry_after: int | None = None,
        headers: Mapping[str, str] | None = None,
        **details: Any,
    ) -> None:
        super().__init__(message)
        self.code = code or self.code
        self.retry_after = retry_after
        self.headers = headers or {}
        self.details = details


class InvalidJsonError(ApiError):
    status, code = 400, "invalid_json"


class UnauthorizedError(ApiError):
    status, code = 401, "unauthorized"


class ForbiddenError(ApiError):
    status, code = 403, "forbidden"


class NotFoundError(ApiError):
    status, code = 404, "not_found"


class GalleryIdsMissingError(ApiError):
    status, code = 404, "gallery_ids_missing"

    def __init__(self, missing: list[str]) -> None:
        super().__init__(
            f"{len(missing)} gallery ids are not registered",
            missing=missing[:20],
            count=len(missing),
        )


class CollectionInUseError(ApiError):
    status, code = 409, "collection_in_use"


class NameTakenError(ApiError):
    status, code = 409, "name_taken"


class TooLargeError(ApiError):
    status, code = 413, "payload_too_large"


class MediaTypeError(ApiError):
    status, code = 415, "unsupported_media_type"


class UnprocessableError(ApiError):
    status, code = 422, "validation_error"


class DescriptorDimMismatchError(UnprocessableError):
    """Descriptors with another length than those of the `owner`, such as a collection."""

    code = "descriptor_dim_mismatch"

    def __init__(self, field: str, wrong: Misfit, owner: str, **details: Any) -> None:
        super().__init__(
            f"{field}: {wrong.actual} numbers, but {owner} has {wrong.expected}",
            field=field,
            expected=wrong.expected,
            found=wrong.actual,
            **details,
        )


class OverloadedError(ApiError):
    status, code = 429, "overloaded"


class NoExtractorError(ApiError):
    status, code = 501, "no_extractor"


class UnavailableError(ApiError):
    status, code = 503, "not_ready"


class StoreUnavailableError(UnavailableError):
    code = "store_unavailable"


class DeadlineExceededError(ApiError):
    status, code = 504, "deadline_exceeded"


class ClientDisconnectedError(ApiError):
    """Nobody reads this answer; the log and the metrics call it 499."""

    status, code = 499, "client_disconnected"


class StoreFullError(ApiError):
    status, code = 507, "store_full"


def invalid_model(error: ValidationError, place: str = "") -> UnprocessableError:
    """Turns a pydantic error in the object at `place` of a request into the contract's error."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    outer = (place,) if place else ()
    return invalid_fields(
        [(field_name((*outer, *e["loc"])), e["msg"]) for e in faults[:_MAX_FAULTS]]
    )


def invalid_fields(faults: list[tuple[str, str]]) -> UnprocessableError:
    """Makes one error of (field, message) of each fault, in their order."""
    short = [(shortened(field) or "body", shortened(message)) for field, message in faults]
    field, message = short[0]
    return UnprocessableError(
        f"{field}: {message}",
        field=field,
        errors=[{"field": field, "message": message} for field, message in short[:_MAX_FAULTS]],
    )


def shortened(text: str) -> str:
    """Shortens a client's text for messages."""
    return text if len(text) <= _MAX_LETTERS else text[:_MAX_LETTERS] + "…"


def field_name(location: tuple[int | str, ...]) -> str:
    # Pydantic adds the tags of unions, which the client did not send.
    return ".".join(str(part) for part in location if part not in ("nested", "packed", "array"))
