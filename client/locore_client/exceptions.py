"""The errors of a call: one class for every code of the contract."""

from __future__ import annotations

from typing import Any


class ClientError(Exception):
    """The base class, and the error for a code that is not in the contract.

    `code` is the contract's (docs/api.md), or `unreachable`, `not_ours` or `invalid_request`, which
    only the client says; `status` the HTTP status, None if no answer came; `details` what the
    service adds; `field` and `image_id` what the error is about, where that is one field or image;
    `request_id` finds the call in the service's log; `retry_after` the seconds that the service
    asks to be left alone; `registered`: of a `register` in several requests, how many images those
    before this one have stored.
    """

    def __init__(
        self,
        code: str,
        message: str,
        status: int | None = None,
        *,
        details: dict[str, Any] | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.details = details or {}
        self.request_id = request_id
        self.retry_after = retry_after
        self.field: str | None = self.details.get("field")
        self.image_id: str | None = self.details.get("id")
        self.registered = 0


class InvalidJsonError(ClientError):
    """400: the body is not JSON. This client never causes it."""


class UnauthorizedError(ClientError):
    """401: no key, or the wrong one."""


class NotFoundError(ClientError):
    """404: no such image, collection, alias or path."""


class GalleryIdsMissingError(ClientError):
    """404: images of the shortlist are not registered; `missing` has the first 20 of `count`."""

    @property
    def missing(self) -> list[str]:
        return list(self.details.get("missing", []))

    @property
    def count(self) -> int:
        return int(self.details.get("count", len(self.missing)))


class ForbiddenError(ClientError):
    """403: the key may read and re-rank only, or an `Origin` header names another site."""


class MalformedRequestError(ClientError):
    """400: the request was not HTTP. This client does not send such requests by itself."""


class RequestTimeoutError(MalformedRequestError):
    """408: the head of the request came too slowly."""


class HeadersTooLargeError(MalformedRequestError):
    """431: the client's headers are too many or too long."""


class UnsupportedMediaTypeError(ClientError):
    """415: the client's headers name another type or encoding than JSON or gzip."""


class MethodNotAllowedError(ClientError):
    """405: the client's URL is not the service's root."""


class CollectionInUseError(ClientError):
    """409: an alias points at the collection; `aliases` names the first 20."""

    @property
    def aliases(self) -> list[str]:
        return list(self.details.get("aliases", []))


class NameTakenError(ClientError):
    """409: a collection has the name of the new alias."""


class PayloadTooLargeError(ClientError):
    """413: the body exceeds the service's limit: one image is too large, or the client's limit too
    high."""


class TooManyImagesError(ClientError):
    """413: the client's `max_images_per_request` is above the service's."""


class RequestValidationError(ClientError):
    """422: an unknown field, a wrong shape, a value out of bounds; `field` names it."""


class DescriptorDimMismatchError(ClientError):
    """422: descriptors of another size than the checkpoint's."""


class InvalidDescriptorsError(ClientError):
    """422: NaN, infinity, a row of zeros; without a status if the client found it."""


class DuplicateGalleryIdsError(ClientError):
    """422: an image is in the shortlist twice."""


class NotAnImageError(ClientError):
    """422: a picture that cannot be read; `image_id` or `field` says which."""


class OverloadedError(ClientError):
    """429: the queue was full for as long as the client may wait."""


class UnavailableError(ClientError):
    """503: the service could not work for as long as the client may wait."""


class StoreUnavailableError(UnavailableError):
    """503: Redis is unavailable."""


class ExtractorUnavailableError(UnavailableError):
    """503: the process that describes pictures crashed, perhaps because of this picture, so it is
    not sent again."""


class NotReadyError(UnavailableError):
    """503: the model is not warm."""


class ShuttingDownError(UnavailableError):
    """503: the process is draining."""


class NoExtractorError(ClientError):
    """501: the service makes no descriptors of pictures."""


class DeadlineExceededError(ClientError):
    """The time was over: by the service's clock (504), or by the client's, without a status. A
    registration may or may not have been stored."""


class StoreFullError(ClientError):
    """507: Redis has no memory left and refuses writes."""


class InternalError(ClientError):
    """500: a defect; the request id finds it in the service's log."""


class UnreachableError(ClientError):
    """No connection, or it broke. A registration may or may not have been stored."""


class NotFromServiceError(ClientError):
    """The answer is not from this service, but from another server or a proxy."""


class InvalidRequestError(ClientError):
    """Nothing was sent: a URL, a header or a value is invalid."""


ERRORS: dict[str, type[ClientError]] = {
    "invalid_json": InvalidJsonError,
    "malformed_request": MalformedRequestError,
    "unauthorized": UnauthorizedError,
    "forbidden": ForbiddenError,
    "not_found": NotFoundError,
    "gallery_ids_missing": GalleryIdsMissingError,
    "method_not_allowed": MethodNotAllowedError,
    "request_timeout": RequestTimeoutError,
    "headers_too_large": HeadersTooLargeError,
    "unsupported_media_type": UnsupportedMediaTypeError,
    "collection_in_use": CollectionInUseError,
    "name_taken": NameTakenError,
    "payload_too_large": PayloadTooLargeError,
    "too_many_images": TooManyImagesError,
    "validation_error": RequestValidationError,
    "descriptor_dim_mismatch": DescriptorDimMismatchError,
    "invalid_descriptors": InvalidDescriptorsError,
    "duplicate_gallery_ids": DuplicateGalleryIdsError,
    "not_an_image": NotAnImageError,
    "no_extractor": NoExtractorError,
    "overloaded": OverloadedError,
    "store_unavailable": StoreUnavailableError,
    "not_ready": NotReadyError,
    "extractor_unavailable": ExtractorUnavailableError,
    "shutting_down": ShuttingDownError,
    "deadline_exceeded": DeadlineExceededError,
    "store_full": StoreFullError,
    "internal": InternalError,
}
"""The contract's codes."""
