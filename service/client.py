"""A client of the service: packs arrays, turns errors into exceptions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import httpx
import numpy as np
from pydantic import BaseModel

from model.closing import Closing
from model.descriptors import ImageDescriptors
from service.arrays import pack
from service.schemas import GalleryPage, RegisterResponse, RerankResponse

_Answer = TypeVar("_Answer", bound=BaseModel)


class ClientError(Exception):
    """The service answered with an error, or not at all (`code` is then `unreachable`)."""

    def __init__(self, code: str, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


class Client(Closing):
    """Blocking; one connection pool. Every method raises ClientError."""

    def __init__(self, url: str, api_key: str | None = None, timeout: float = 60.0) -> None:
        headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        try:
            self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout)
        except httpx.InvalidURL as error:
            raise ClientError("invalid_request", f"{url}: {error}") from None
        self.url = url

    def register(
        self,
        images: Mapping[str, ImageDescriptors],
        collection: str = "default",
        ttl_seconds: int | None = None,
    ) -> RegisterResponse:
        body = {
            "collection": collection,
            "images": [{"id": i, **packed_image(image)} for i, image in images.items()],
            "ttl_seconds": ttl_seconds,
        }
        return self._call(RegisterResponse, "POST", "/gallery", json=body)

    def page(
        self, collection: str = "default", limit: int = 10_000, cursor: str | None = None
    ) -> GalleryPage:
        parameters = {"collection": collection, "limit": limit, "cursor": cursor}
        found = {name: value for name, value in parameters.items() if value is not None}
        return self._call(GalleryPage, "GET", "/gallery", params=found)

    def rerank(
        self,
        query: ImageDescriptors,
        gallery_ids: list[str],
        collection: str = "default",
        **options: Any,
    ) -> RerankResponse:
        """`options` are the further fields of the request, as in docs/api.md."""
        body = rerank_body(query, gallery_ids, collection, **options)
        return self._call(RerankResponse, "POST", "/rerank", json=body)

    def close(self) -> None:
        self._http.close()

    def _call(self, schema: type[_Answer], method: str, path: str, **arguments: Any) -> _Answer:
        try:
            response = self._http.request(method, path, **arguments)
        except httpx.HTTPError as error:
            raise ClientError("unreachable", f"{self.url}: {error}") from None
        except ValueError as error:
            raise ClientError("invalid_request", str(error)) from None
        try:
            if response.is_success:
                return schema.model_validate_json(response.content)
            said = response.json()["error"]
            raise ClientError(said["code"], said["message"], response.status_code)
        except (ValueError, KeyError, TypeError):
            message = f"{self.url}: HTTP {response.status_code}, and not from this service"
            raise ClientError("not_ours", message, response.status_code) from None


def packed_image(image: ImageDescriptors) -> dict[str, Any]:
    """An image's arrays as the service takes them."""
    packed: dict[str, Any] = {
        "descriptors": pack(np.asarray(image.locals)),
        "scales": image.scales.tolist(),
    }
    if image.padding is not None:
        packed["mask"] = image.padding.astype(int).tolist()
    if image.global_ is not None:
        packed["global"] = pack(np.asarray(image.global_))
    return packed


def rerank_body(
    query: ImageDescriptors, gallery_ids: list[str], collection: str, **options: Any
) -> dict[str, Any]:
    """The JSON body of POST /rerank."""
    return {
        "collection": collection,
        "query": packed_image(query),
        "gallery_ids": gallery_ids,
        **options,
    }
