"""Every method of the clients as data: the request, and how its answer is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypedDict, TypeVar
from urllib.parse import quote

from pydantic import BaseModel

from locore_client.bodies import Picture, Query, RerankFields, picture_bytes, rerank_body, to_json
from locore_client.contract import (
    MAX_TIMEOUT_MS,
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
from locore_client.exceptions import InvalidRequestError
from locore_client.splitting import Part

_Result = TypeVar("_Result")
_Schema = TypeVar("_Schema", bound=BaseModel)


class HowToCall(TypedDict, total=False):
    """`timeout`: seconds for the whole call with all its retries, by default the client's;
    `request_id`: sent as X-Request-ID, by default a new one; `headers`: further headers, for
    example `traceparent`."""

    timeout: float | None
    request_id: str | None
    headers: Mapping[str, str] | None


class HowToRerank(RerankFields, HowToCall, total=False):
    """HowToCall and RerankFields together."""


@dataclass(frozen=True)
class Call(Generic[_Result]):
    """`body`: made for the remaining seconds; `content_type`: of the body; `timed`: the parameters
    tell the service the remaining time; `parse`: makes the result from an answer's bytes, and
    raises ValueError if they are not the service's; `repeatable`: see `patience.Patience`; `once`:
    never repeated, since the present answer is wanted."""

    method: str
    path: str
    parse: Callable[[bytes], _Result]
    params: Mapping[str, str | int] = field(default_factory=dict)
    body: Callable[[float], bytes] | None = None
    content_type: str = "application/json"
    timed: bool = False
    repeatable: bool = True
    once: bool = False


def register(part: Part) -> Call[RegisterResponse]:
    """Repeatable: registering again replaces an image with itself."""
    parse = _reader(RegisterResponse)
    return Call("POST", "/gallery", parse, body=lambda _: part.body)


def page(collection: str, limit: int, cursor: str | None) -> Call[GalleryPage]:
    parameters = {"collection": collection, **_turn(limit, cursor)}
    return Call("GET", "/gallery", _reader(GalleryPage), parameters)


def get(image_id: str, collection: str, include_descriptors: bool) -> Call[StoredImage]:
    parameters: dict[str, str | int] = {"collection": collection}
    if include_descriptors:
        parameters["include"] = "descriptors"
    return Call("GET", _path("gallery", image_id), _reader(StoredImage), parameters)


def delete(image_id: str, collection: str) -> Call[None]:
    """Not repeatable: a second call would not find what a first one without an answer had
    deleted."""
    path, parameters = _path("gallery", image_id), {"collection": collection}
    return Call("DELETE", path, lambda _: None, parameters, repeatable=False)


def collections(limit: int, cursor: str | None) -> Call[CollectionPage]:
    return Call("GET", "/collections", _reader(CollectionPage), _turn(limit, cursor))


def collection(name: str) -> Call[CollectionSummary]:
    return Call("GET", _path("collections", name), _reader(CollectionSummary))


def empty(collection: str) -> Call[Emptied]:
    """Not repeatable: a second call might delete what was registered after the first."""
    parameters = {"collection": collection}
    return Call("DELETE", "/gallery", _reader(Emptied), parameters, repeatable=False)


def drop(collection: str) -> Call[None]:
    """Not repeatable, as `delete`."""
    return Call("DELETE", _path("collections", collection), lambda _: None, repeatable=False)


def aliases(limit: int, cursor: str | None) -> Call[AliasPage]:
    return Call("GET", "/aliases", _reader(AliasPage), _turn(limit, cursor))


def set_alias(alias: str, collection: str) -> Call[AliasMove]:
    body = to_json({"collection": collection})
    return Call("PUT", _path("aliases", alias), _reader(AliasMove), body=lambda _: body)


def delete_alias(alias: str) -> Call[None]:
    """Not repeatable, as `delete`."""
    return Call("DELETE", _path("aliases", alias), lambda _: None, repeatable=False)


def rerank(
    query: Query, gallery_ids: list[str], collection: str, how: HowToRerank
) -> Call[RerankResponse]:
    """The body has the fields of RerankFields."""
    options = {name: value for name, value in how.items() if name not in HowToCall.__annotations__}
    fields = rerank_body(query, gallery_ids, collection, **options)
    longest = how.get("timeout_ms") or MAX_TIMEOUT_MS

    def body(seconds: float) -> bytes:
        return to_json({**fields, "timeout_ms": timeout_ms(seconds, longest)})

    return Call("POST", "/rerank", _reader(RerankResponse), body=body)


def extract(picture: Picture) -> Call[ExtractResponse]:
    data = picture_bytes(picture)
    return Call(
        "POST",
        "/extract",
        _reader(ExtractResponse),
        body=lambda _: data,
        content_type="image/*",
        timed=True,
    )


def ready() -> Call[Health]:
    return Call("GET", "/health/ready", _reader(Health), once=True)


def info() -> Call[Info]:
    return Call("GET", "/info", _reader(Info))


def timeout_ms(seconds: float, longest: int = MAX_TIMEOUT_MS) -> int:
    """The remaining time, within the contract's limits."""
    return max(1, min(int(seconds * 1000), longest, MAX_TIMEOUT_MS))


def _reader(schema: type[_Schema]) -> Callable[[bytes], _Schema]:
    return schema.model_validate_json


def _turn(limit: int, cursor: str | None) -> dict[str, str | int]:
    return {"limit": limit} if cursor is None else {"limit": limit, "cursor": cursor}


def _path(what: str, name: str) -> str:
    if not name:
        raise InvalidRequestError("invalid_request", "an id or name needs at least one character")
    if not name.isascii():
        raise InvalidRequestError("invalid_request", f"{name!a} is not an id or name")
    # Ids may be paths; `..` in one must not be resolved on the way.
    steps = (
        step.replace(".", "%2E") if step in (".", "..") else quote(step, safe=":@=+")
        for step in name.split("/")
    )
    return f"/{what}/" + "/".join(steps)
