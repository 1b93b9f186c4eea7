"""The client for asyncio; any number of tasks may share one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
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


class AsyncClient:
    """The methods of `Client`, for asyncio; its documentation applies here too. A call stops
    exactly at its deadline."""

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
        """The arguments of `Client`. Raises InvalidRequestError for an invalid URL."""
        self.url = url
        self._setup = Setup(url, timeout, retries, max_images_per_request, max_payload_bytes)
        with self._setup.checking_url():
            all_headers = self._setup.headers(api_key, headers)
            self._http = httpx.AsyncClient(base_url=url, headers=all_headers, **self._setup.way)

    async def register(
        self,
        images: NewImages,
        collection: str = "default",
        ttl_seconds: int | None = None,
        **how: Unpack[HowToCall],
    ) -> RegisterResponse:
        registration = Registration(parts(images, collection, ttl_seconds, *self._setup.limits))
        with registration.counting():
            for part in registration:
                registration.add(await self._run(calls.register(part), how))
        return registration.answer

    async def page(
        self,
        collection: str = "default",
        limit: int = 10_000,
        cursor: str | None = None,
        **how: Unpack[HowToCall],
    ) -> GalleryPage:
        return await self._run(calls.page(collection, limit, cursor), how)

    async def ids(
        self, collection: str = "default", page_size: int = 10_000, **how: Unpack[HowToCall]
    ) -> AsyncIterator[str]:
        cursor: str | None = None
        while True:
            page = await self.page(collection, page_size, cursor, **how)
            for image_id in page.ids:
                yield image_id
            collection, cursor = page.collection or collection, page.next_cursor
            if cursor is None:
                return

    async def get(
        self,
        image_id: str,
        collection: str = "default",
        *,
        include_descriptors: bool = False,
        **how: Unpack[HowToCall],
    ) -> StoredImage:
        return await self._run(calls.get(image_id, collection, include_descriptors), how)

    async def delete(
        self, image_id: str, collection: str = "default", **how: Unpack[HowToCall]
    ) -> None:
        await self._run(calls.delete(image_id, collection), how)

    async def collections(
        self, page_size: int = 100, **how: Unpack[HowToCall]
    ) -> AsyncIterator[CollectionSummary]:
        async for page in self._pages(partial(calls.collections, page_size), how):
            for one in page.collections:
                yield one

    async def collection(self, name: str, **how: Unpack[HowToCall]) -> CollectionSummary:
        return await self._run(calls.collection(name), how)

    async def empty(self, collection: str, **how: Unpack[HowToCall]) -> Emptied:
        return await self._run(calls.empty(collection), how)

    async def drop(self, collection: str, **how: Unpack[HowToCall]) -> None:
        await self._run(calls.drop(collection), how)

    async def aliases(self, page_size: int = 100, **how: Unpack[HowToCall]) -> AsyncIterator[Alias]:
        async for page in self._pages(partial(calls.aliases, page_size), how):
            for one in page.aliases:
                yield one

    async def set_alias(self, alias: str, collection: str, **how: Unpack[HowToCall]) -> AliasMove:
        return await self._run(calls.set_alias(alias, collection), how)

    async def delete_alias(self, alias: str, **how: Unpack[HowToCall]) -> None:
        await self._run(calls.delete_alias(alias), how)

    async def rerank(
        self,
        query: Query,
        gallery_ids: list[str],
        collection: str = "default",
        **how: Unpack[HowToRerank],
    ) -> RerankResponse:
        return await self._run(calls.rerank(query, gallery_ids, collection, how), how)

    async def extract(self, picture: Picture, **how: Unpack[HowToCall]) -> ExtractResponse:
        return await self._run(calls.extract(picture), how)

    async def ready(self, **how: Unpack[HowToCall]) -> Health:
        return await self._run(calls.ready(), how)

    async def info(self, **how: Unpack[HowToCall]) -> Info:
        return await self._run(calls.info(), how)

    async def aclose(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _pages(
        self, call: Callable[[str | None], Call[_Page]], how: HowToCall
    ) -> AsyncIterator[_Page]:
        cursor: str | None = None
        while True:
            page = await self._run(call(cursor), how)
            yield page
            cursor = page.next_cursor
            if cursor is None:
                return

    async def _run(self, call: Call[_Result], how: HowToCall) -> _Result:
        exchange = self._setup.exchange(call, how)
        while True:
            try:
                body = exchange.body()
                with exchange.faults():
                    async with asyncio.timeout(exchange.deadline.left()):
                        answer = await self._send(exchange, body)
                return exchange.result(answer)
            except ClientError as error:
                seconds = exchange.wait(error)
                if seconds is None:
                    raise
            await asyncio.sleep(seconds)

    async def _send(self, exchange: Exchange[_Result], body: bytes | None) -> Answer:
        call = exchange.call
        response = await self._http.request(
            call.method,
            call.path,
            params=exchange.params(),
            headers=exchange.headers,
            content=body,
            extensions={"timeout": exchange.deadline},
        )
        return Answer(response.status_code, response.headers, response.content)
