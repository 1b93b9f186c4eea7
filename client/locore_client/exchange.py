"""One call from its start to its deadline. The caller does the I/O."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

import httpx

from locore_client.calls import Call, HowToCall, timeout_ms
from locore_client.contract import REQUEST_ID_HEADER, ErrorResponse
from locore_client.exceptions import (
    ERRORS,
    ClientError,
    DeadlineExceededError,
    InvalidRequestError,
    NotFromServiceError,
    UnreachableError,
)
from locore_client.patience import Deadline, Patience, retry_after
from locore_client.proxies import Way, way_to

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Answer:
    status: int
    headers: httpx.Headers
    content: bytes


class Exchange(Generic[_Result]):
    """A call that has begun."""

    def __init__(
        self, call: Call[_Result], url: str, timeout: float, retries: int, how: HowToCall
    ) -> None:
        timeout_of_call = how.get("timeout")
        self._timeout = timeout if timeout_of_call is None else timeout_of_call
        self._url = url
        self._refusal: ClientError | None = None
        self.call = call
        self.deadline = Deadline(self._timeout)
        self._patience = Patience(
            self.deadline, 0 if call.once else retries, repeatable=call.repeatable
        )
        # The retries of a call share its id, so the service's log shows them as one call.
        self._request_id = how.get("request_id") or uuid.uuid4().hex
        with self.faults():
            self.headers = httpx.Headers({REQUEST_ID_HEADER: self._request_id})
            self.headers.update(sendable(how.get("headers") or {}))
        self._request_id = self.headers[REQUEST_ID_HEADER]
        if call.body is not None:
            self.headers["Content-Type"] = call.content_type

    def wait(self, error: ClientError) -> float | None:
        """See `Patience.wait`."""
        return self._patience.wait(error)

    def params(self) -> dict[str, str | int]:
        timed_params = {"timeout_ms": timeout_ms(self.deadline.left())} if self.call.timed else {}
        return {**self.call.params, **timed_params}

    def body(self) -> bytes | None:
        return None if self.call.body is None else self.call.body(self.deadline.left())

    @contextmanager
    def faults(self) -> Iterator[None]:
        """Turns connection errors into ClientError."""
        try:
            yield
        except (TimeoutError, httpx.TimeoutException):
            message = f"{self._url}: no answer within {self._timeout:g} seconds"
            if self._refusal is not None:
                message += f"; before that: {self._refusal}"
            raise self._error(DeadlineExceededError, "deadline_exceeded", message) from None
        except (
            httpx.InvalidURL,
            httpx.UnsupportedProtocol,
            httpx.LocalProtocolError,
            ValueError,
        ) as error:
            message = f"{self._url}: {error}"
            raise self._error(InvalidRequestError, "invalid_request", message) from None
        except httpx.HTTPError as error:
            why = str(error) or type(error).__name__
            raise self._error(UnreachableError, "unreachable", f"{self._url}: {why}") from None

    def result(self, answer: Answer) -> _Result:
        """Raises ClientError."""
        try:
            if 200 <= answer.status < 300:
                return self.call.parse(answer.content)
            error_body = ErrorResponse.model_validate_json(answer.content).error
        except ValueError:
            message = f"{self._url}: HTTP {answer.status}, and not from this service"
            raise self._error(NotFromServiceError, "not_ours", message, answer) from None
        kind = ERRORS.get(error_body.code, ClientError)
        raise self._error(kind, error_body.code, error_body.message, answer, error_body.details)

    def _error(
        self,
        kind: type[ClientError],
        code: str,
        message: str,
        answer: Answer | None = None,
        details: dict[str, Any] | None = None,
    ) -> ClientError:
        headers = httpx.Headers() if answer is None else answer.headers
        self._refusal = kind(
            code,
            message,
            None if answer is None else answer.status,
            details=details,
            request_id=headers.get(REQUEST_ID_HEADER, self._request_id),
            retry_after=retry_after(headers),
        )
        return self._refusal


def public(url: str) -> str:
    """The URL without user and password, for messages."""
    return re.sub(r"//[^/]*@", "//", url, count=1)


def sendable(headers: Mapping[str, str]) -> dict[str, str]:
    """Strips white space around the values of `headers`. Raises ValueError for one that cannot be
    sent; the message does not repeat it, since it may be a secret."""
    stripped = {name: value.strip() for name, value in headers.items()}
    for name, value in stripped.items():
        if not all(" " <= character <= "~" or character == "\t" for character in value):
            raise ValueError(f"the header {name} has a line break or a letter beyond ASCII")
    return stripped


@dataclass(frozen=True)
class Setup:
    """The arguments of `Client`."""

    url: str
    timeout: float
    retries: int
    max_images_per_request: int
    max_payload_bytes: int

    @property
    def limits(self) -> tuple[int, int]:
        return self.max_images_per_request, self.max_payload_bytes

    @cached_property
    def way(self) -> Way:
        return way_to(self.url)

    @property
    def _address(self) -> str:
        proxy = self.way["proxy"]
        return public(self.url) + (f" through the proxy {public(proxy)}" if proxy else "")

    def headers(self, api_key: str | None, extra: Mapping[str, str] | None) -> dict[str, str]:
        key = {} if api_key is None else {"Authorization": f"Bearer {api_key.strip()}"}
        return sendable({**(extra or {}), **key})

    def exchange(self, call: Call[_Result], how: HowToCall) -> Exchange[_Result]:
        return Exchange(call, self._address, self.timeout, self.retries, how)

    @contextmanager
    def checking_url(self) -> Iterator[None]:
        """Turns errors about the URL, a header or the proxy into InvalidRequestError."""
        try:
            yield
        except (httpx.InvalidURL, ValueError, ImportError, OSError) as error:
            raise InvalidRequestError("invalid_request", f"{public(self.url)}: {error}") from None
