"""A client of the service, blocking and asyncio: packs arrays, splits bulk registrations, repeats
what was refused for now, keeps a deadline, turns errors into exceptions. docs/client.md shows it.

`errors`: an exception for every code; `bodies`: what is sent; `splitting`: a registration in parts;
`calls`: every method as data; `patience`: deadlines and retries; `exchange`: a call under way, and
what its answer comes to. None of these does I/O: that is `blocking` and `asynchronous`.
"""

from __future__ import annotations

from locore_client.asynchronous import AsyncClient
from locore_client.blocking import Client
from locore_client.bodies import (
    Descriptors,
    Image,
    ImageArrays,
    descriptors_of,
    image_from_arrays,
    packed_image,
    rerank_body,
)
from locore_client.errors import (
    ERRORS,
    ClientError,
    CollectionInUseError,
    DeadlineExceededError,
    DescriptorDimMismatchError,
    DuplicateGalleryIdsError,
    ForbiddenError,
    GalleryIdsMissingError,
    HeadersTooLargeError,
    InternalError,
    InvalidDescriptorsError,
    InvalidJsonError,
    InvalidRequestError,
    MalformedRequestError,
    MethodNotAllowedError,
    NameTakenError,
    NotFoundError,
    NotFromServiceError,
    NotReadyError,
    OverloadedError,
    PayloadTooLargeError,
    RequestTimeoutError,
    RequestValidationError,
    ShuttingDownError,
    StoreFullError,
    StoreUnavailableError,
    TooManyImagesError,
    UnauthorizedError,
    UnavailableError,
    UnreachableError,
    UnsupportedMediaTypeError,
)
from locore_client.splitting import NewImage, NewImages

__all__ = [
    "ERRORS",
    "AsyncClient",
    "Client",
    "ClientError",
    "CollectionInUseError",
    "DeadlineExceededError",
    "DescriptorDimMismatchError",
    "Descriptors",
    "DuplicateGalleryIdsError",
    "ForbiddenError",
    "GalleryIdsMissingError",
    "HeadersTooLargeError",
    "Image",
    "ImageArrays",
    "InternalError",
    "InvalidDescriptorsError",
    "InvalidJsonError",
    "InvalidRequestError",
    "MalformedRequestError",
    "MethodNotAllowedError",
    "NameTakenError",
    "NewImage",
    "NewImages",
    "NotFoundError",
    "NotFromServiceError",
    "NotReadyError",
    "OverloadedError",
    "PayloadTooLargeError",
    "RequestTimeoutError",
    "RequestValidationError",
    "ShuttingDownError",
    "StoreFullError",
    "StoreUnavailableError",
    "TooManyImagesError",
    "UnauthorizedError",
    "UnavailableError",
    "UnreachableError",
    "UnsupportedMediaTypeError",
    "descriptors_of",
    "image_from_arrays",
    "packed_image",
    "rerank_body",
]
