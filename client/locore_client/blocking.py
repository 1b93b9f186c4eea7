"""The client for plain code; any number of threads may share one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import TracebackType
from typing import Self, TypeVar, Unpack

import httpx

from locore_client import calls
from locore_client.bodies import Picture, Query
from locore_client.calls import Call, HowToCall, HowToRerank
from locore_client.contract import (
    Alias,
    AliasMove,
    AliasPage,
    CollectionPage,
    CollectionSummary,
    Emptied,
    ExtractResponse,
    GalleryPage,
    Health,
    Info,
    RegisterResponse,
    RerankResponse,
    StoredImage,
)
from locore_client.exceptions import ClientError
from locore_client.exchange import Answer, Exchange, Setup
from locore_client.splitting import NewImages, Registration, parts

_Result = TypeVar("_Result")
_Page = TypeVar("_Page", CollectionPage, AliasPage)
_CHUNK = 1 << 16


class Client:
    """One connection pool. Every method raises ClientError, or its subclass for the error's code.

    Temporary refusals (429, 503) are retried when `Retry-After` says, or after a random wait that
    grows; so are calls without an answer, unless they delete. If a wait would not end within the
    call's `timeout`, the refusal is raised instead. If the service is slow within one step of an
    exchange, a call may exceed it (docs/client.md); AsyncClient stops exactly.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        timeout: float = 60.0,
        *,
        retries: int = 4,
        headers: Mapping[str, str] | None = None,
        max_images_per_request: int = 256,
        max_payload_bytes: int = 32 << 20,
    ) -> None:
        """`timeout`: seconds for a call; `retries`: how often it may be repeated; `headers`: sent
        with every call; the two limits are those of the service (LOCORE_MAX_IMAGES_PER_REQUEST,
        LOCORE_MAX_PAYLOAD_BYTES). Raises InvalidRequestError for an invalid URL."""
        self.url = url
        self._setup = Setup(url, timeout, retries, max_images_per_request, max_payload_bytes)
        with self._setup.checking_url():
            all_headers = self._setup.headers(api_key, headers)
            self._http = httpx.Client(base_url=url, headers=all_headers, **self._setup.way)

    def register(
        self,
        images: NewImages,
        collection: str = "default",
        ttl_seconds: int | None = None,
        **how: Unpack[HowToCall],
    ) -> RegisterResponse:
        """Register any number of images: a mapping, or pairs of id and image, which may be lazy and
        are read as they are sent. Returns the sums over all requests.

        The images are sent in as many requests as the service's limits require, one after the
        other, each with its own `timeout`. Each request is all or nothing, but not the whole call:
        if a later one fails, the images of those before it stay, and the error's `registered` says
        how many, in the order of `images`. Repeating the call replaces them.
        """
        registration = Registration(parts(images, collection, ttl_seconds, *self._setup.limits))
        with registration.counting():
            for part in registration:
                registration.add(self._run(calls.register(part), how))
        return registration.answer

    def page(
        self,
        collection: str = "default",
        limit: int = 10_000,
        cursor: str | None = None,
        **how: Unpack[HowToCall],
    ) -> GalleryPage:
        """Up to `limit` ids from `cursor` on, the next cursor, and the sizes of the collection's
        descriptors."""
        return self._run(calls.page(collection, limit, cursor), how)

    def ids(
        self, collection: str = "default", page_size: int = 10_000, **how: Unpack[HowToCall]
    ) -> Iterator[str]:
        """All ids of a collection, page by page; `timeout` is for each page. If `collection` is an
        alias that moves meanwhile, the ids of the former collection."""
        cursor: str | None = None
        while True:
            page = self.page(collection, page_size, cursor, **how)
            yield from page.ids
            collection, cursor = page.collection or collection, page.next_cursor
            if cursor is None:
                return

    def get(
        self,
        image_id: str,
        collection: str = "default",
        *,
        include_descriptors: bool = False,
        **how: Unpack[HowToCall],
    ) -> StoredImage:
        """What is stored of an image; `locore_client.descriptors_of` unpacks its arrays."""
        return self._run(calls.get(image_id, collection, include_descriptors), how)

    def delete(self, image_id: str, collection: str = "default", **how: Unpack[HowToCall]) -> None:
        """Raises NotFoundError for an unknown id."""
        self._run(calls.delete(image_id, collection), how)

    def collections(
        self, page_size: int = 100, **how: Unpack[HowToCall]
    ) -> Iterator[CollectionSummary]:
        """Iterates over all collections by name, with their counts, sizes, bytes and aliases."""
        for page in self._pages(partial(calls.collections, page_size), how):
            yield from page.collections

    def collection(self, name: str, **how: Unpack[HowToCall]) -> CollectionSummary:
        """One collection, by its name or an alias. Raises NotFoundError."""
        return self._run(calls.collection(name), how)

    def empty(self, collection: str, **how: Unpack[HowToCall]) -> Emptied:
        """Delete all images of a collection in one step; its name and aliases stay."""
        return self._run(calls.empty(collection), how)

    def drop(self, collection: str, **how: Unpack[HowToCall]) -> None:
        """Raises NotFoundError, and CollectionInUseError while an alias points at it."""
        self._run(calls.drop(collection), how)

    def aliases(self, page_size: int = 100, **how: Unpack[HowToCall]) -> Iterator[Alias]:
        """Iterates over all aliases by name."""
        for page in self._pages(partial(calls.aliases, page_size), how):
            yield from page.aliases

    def set_alias(self, alias: str, collection: str, **how: Unpack[HowToCall]) -> AliasMove:
        """Make an alias, or move it to another collection, in one step. `previous` is where it
        pointed before; after a retry without an answer it may be the new collection. Raises
        NotFoundError if there is no such collection, NameTakenError if a collection has the alias's
        name."""
        return self._run(calls.set_alias(alias, collection), how)

    def delete_alias(self, alias: str, **how: Unpack[HowToCall]) -> None:
        """The collection stays. Raises NotFoundError."""
        self._run(calls.delete_alias(alias), how)

    def rerank(
        self,
        query: Query,
        gallery_ids: list[str],
        collection: str = "default",
        **how: Unpack[HowToRerank],
    ) -> RerankResponse:
        """A better order of `gallery_ids`, best first, for an image, a picture or the id of an
        image of the collection. The service knows how much of `timeout` is left, and stops by
        itself. `how` also takes the other fields of docs/api.md."""
        return self._run(calls.rerank(query, gallery_ids, collection, how), how)

    def extract(self, picture: Picture, **how: Unpack[HowToCall]) -> ExtractResponse:
        """Descriptors of a picture by the service's extractor; `locore_client.descriptors_of` makes
        an image of them, which is faster to re-rank than the picture. Raises NotAnImageError,
        NoExtractorError and ExtractorUnavailableError."""
        return self._run(calls.extract(picture), how)

    def ready(self, **how: Unpack[HowToCall]) -> Health:
        """Checks readiness, without retries. Raises NotReadyError, StoreUnavailableError or
        ShuttingDownError."""
        return self._run(calls.ready(), how)

    def info(self, **how: Unpack[HowToCall]) -> Info:
        """The model, the sizes of descriptors that it needs, limits and defaults."""
        return self._run(calls.info(), how)

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _pages(self, call: Callable[[str | None], Call[_Page]], how: HowToCall) -> Iterator[_Page]:
        cursor: str | None = None
        while True:
            page = self._run(call(cursor), how)
            yield page
            cursor = page.next_cursor
            if cursor is None:
                return

    def _run(self, call: Call[_Result], how: HowToCall) -> _Result:
        exchange = self._setup.exchange(call, how)
        while True:
            try:
                body = exchange.body()
                with exchange.faults():
                    answer = self._send(exchange, body)
                return exchange.result(answer)
            except ClientError as error:
                seconds = exchange.wait(error)
                if seconds is None:
                    raise
            time.sleep(seconds)

    def _send(self, exchange: Exchange[_Result], body: bytes | None) -> Answer:
        call, deadline, headers = exchange.call, exchange.deadline, exchange.headers
        # The deadline is checked between the pieces of a body and of an answer: httpx's own
        # timeouts are for each piece.
        pieces = None
        if body is not None:
            headers = httpx.Headers({**headers, "Content-Length": str(len(body))})
            starts = range(0, len(body), _CHUNK)
            pieces = deadline.watch(body[start : start + _CHUNK] for start in starts)
        with self._http.stream(
            call.method,
            call.path,
            params=exchange.params(),
            headers=headers,
            content=pieces,
            extensions={"timeout": deadline},
        ) as response:
            content = b"".join(deadline.watch(response.iter_bytes()))
        return Answer(response.status_code, response.headers, content)
