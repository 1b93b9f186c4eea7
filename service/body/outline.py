"""From the bytes of a JSON body to a request, in pieces, up to the first fault.

msgspec reads the outline first: the fields, each still as JSON. It stops at the first field or
image too many, and makes no Python objects of what it skips. Each field is then checked against its
own limit before it is parsed, and long arrays are parsed piece by piece, so that nothing holds the
interpreter lock for long. Little is left to pydantic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from itertools import chain
from types import NoneType
from typing import Any, TypeGuard, TypeVar, get_args, get_origin

import msgspec
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from locore_client.packing import InvalidArrayError, base64_bytes
from service.api.arrays import Base64, JsonBytes, Numbers, PackedArray
from service.api.errors import (
    InvalidJsonError,
    TooLargeError,
    UnprocessableError,
    invalid_fields,
    invalid_model,
)
from service.body import nested
from service.body.json_fault import OUT_OF_RANGE, fault_of, joined_place

_Request = TypeVar("_Request", bound=BaseModel)
_Mark = TypeVar("_Mark")

_Decoded = TypeVar("_Decoded")
_Json = bytes | msgspec.Raw

MAX_MARKS = 1 << 19
"""More than the rows of 32 MiB of descriptors, and than the names in 256 images with all
metadata."""
_MARKS = {b"[": "lists and rows", b":": "names of fields"}
_COUNTED_BYTES = 1 << 20
_SCALAR_BYTES = 4096
_ESCAPED_BYTES = 64 << 10
_NOT_JSON = (b"-Infinity", b"Infinity", b"NaN")
"""How some programs write numbers that JSON lacks."""
_MAX_REPLACED = 100_000
_TOO_LARGE = b"1e99"
"""Valid JSON, but too large for any array."""


def read_request(
    body: bytes,
    schema: type[_Request],
    decode: Callable[[_Request], _Decoded],
    max_objects: int = 1,
) -> tuple[_Request, _Decoded]:
    """A request, and the result of `decode`. `max_objects`: the longest list of objects.

    Raises InvalidJsonError, UnprocessableError, TooLargeError and what `decode` raises."""

    def parse(text: bytes) -> tuple[_Request, _Decoded]:
        request = _object(text, schema, "", max_objects)
        return request, decode(request)

    body = body.removeprefix(b"\xef\xbb\xbf")
    _check_marks(body)
    try:
        return parse(body)
    except InvalidJsonError:
        # An array with NaN gets its own error; everything else is just not JSON.
        with_numbers = body
        for text in _NOT_JSON:
            with_numbers = with_numbers.replace(text, _TOO_LARGE, _MAX_REPLACED)
        if with_numbers != body:
            parse(with_numbers)
        raise


def _check_marks(body: bytes) -> None:
    """Many short lists or names are cheap to send and expensive to parse."""
    counts = dict.fromkeys(_MARKS, 0)
    for start in range(0, len(body), _COUNTED_BYTES):
        for mark, what in _MARKS.items():
            counts[mark] += body.count(mark, start, start + _COUNTED_BYTES)
            if counts[mark] > MAX_MARKS:
                raise invalid_fields([("body", f"over {MAX_MARKS:,} {what}")])


@contextmanager
def _faults(place: str) -> Iterator[None]:
    """Turns errors of msgspec and of arrays into the contract's."""
    try:
        yield
    except msgspec.ValidationError as error:
        inner, what = fault_of(error)
        raise invalid_fields([(joined_place(place, inner), what)]) from None
    except nested.InvalidElementError as error:
        field = joined_place(place, error.place)
        code = "invalid_descriptors" if str(error) == OUT_OF_RANGE else None
        raise UnprocessableError(f"{field}: {error}", code=code, field=field) from None
    except InvalidArrayError as error:
        raise UnprocessableError(f"{place}: {error}", field=place) from None
    except RecursionError:
        raise InvalidJsonError("the body is nested too deeply") from None
    except ValueError as error:  # msgspec.DecodeError, UnicodeDecodeError
        raise InvalidJsonError(str(error)) from None


@lru_cache
def _outline(schema: type[BaseModel]) -> type[msgspec.Struct]:
    """`schema` with each field left as JSON."""
    fields = [(name, msgspec.Raw, msgspec.UNSET) for name in schema.model_fields]
    names = {name: field.alias or name for name, field in schema.model_fields.items()}
    return msgspec.defstruct(schema.__name__, fields, rename=names, forbid_unknown_fields=True)


@lru_cache
def _list_of(max_objects: int) -> type[msgspec.Struct]:
    """A list of JSON values; as a struct, since msgspec stops that at the first value too many."""
    places = [(f"at_{place}", msgspec.Raw, msgspec.UNSET) for place in range(max_objects)]
    return msgspec.defstruct("List", places, array_like=True, forbid_unknown_fields=True)


def _object(text: _Json, schema: type[_Request], place: str, max_objects: int) -> _Request:
    with _faults(place):
        try:
            outline = msgspec.json.decode(text, type=_outline(schema))
        except msgspec.ValidationError:
            # If the text after the fault is not JSON either, that is the error.
            msgspec.json.decode(text, type=msgspec.Raw)
            raise
    fields: dict[str, Any] = {}
    for name, field in schema.model_fields.items():
        value = getattr(outline, name)
        if value is not msgspec.UNSET:
            alias = field.alias or name
            fields[alias] = _value(value, field, joined_place(place, alias), max_objects)
    try:
        return schema.model_validate(fields)
    except ValidationError as error:
        raise invalid_model(error, place) from None


def _value(text: msgspec.Raw, field: FieldInfo, place: str, max_objects: int) -> Any:
    kind = field.annotation
    (schema,) = get_args(kind) if get_origin(kind) is list else (None,)
    if schema is not None and _is_schema(schema):
        texts = _texts(text, place, max_objects)
        return [_object(t, schema, f"{place}.{n}", max_objects) for n, t in enumerate(texts)]
    # No copy: a query is nearly all of a body.
    json, kinds = memoryview(text), get_args(kind) or (kind,)
    begin = bytes(json[:5])
    forms = [form for form in kinds if _is_schema(form)]
    if forms and (begin != b"null" or NoneType not in kinds):
        form = forms[0] if len(forms) == 1 else _form_of(text, forms, place)
        return _object(text, form, place, max_objects)
    if _mark(field, Numbers) and begin.startswith(b"{"):
        return _object(text, PackedArray, place, max_objects)
    with _faults(place):
        return _parsed(json, field)


def _is_schema(kind: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _form_of(text: msgspec.Raw, forms: Sequence[type[BaseModel]], place: str) -> type[BaseModel]:
    """The form whose first field is present: every form has a different one."""
    marks = {next(iter(form.model_fields)): form for form in forms}
    with _faults(place):
        fields = msgspec.json.decode(text, type=_marks_of(tuple(marks)))
    present = [mark for mark in marks if getattr(fields, mark) is not msgspec.UNSET]
    if len(present) != 1:
        raise invalid_fields([(place, f"exactly one of {', '.join(marks)} is required")])
    return marks[present[0]]


@lru_cache
def _marks_of(names: tuple[str, ...]) -> type[msgspec.Struct]:
    return msgspec.defstruct("Form", [(name, msgspec.Raw, msgspec.UNSET) for name in names])


def _texts(text: msgspec.Raw, place: str, limit: int) -> list[msgspec.Raw]:
    with _faults(place):
        try:
            values = msgspec.json.decode(text, type=_list_of(limit))
        except msgspec.ValidationError as error:
            if "at most length" not in str(error):
                raise
            raise TooLargeError(
                f"{place}: over {limit}, the most in one request",
                code="too_many_images",
                max_images_per_request=limit,
            ) from None
    return [value for value in msgspec.structs.astuple(values) if value is not msgspec.UNSET]


def _parsed(text: memoryview, field: FieldInfo) -> Any:
    numbers = _mark(field, Numbers)
    if numbers is not None and bytes(text[:5]) != b"null":
        nest = bytes(text)
        return nested.vector(nest) if numbers.ndim == 1 else nested.matrix(nest)
    if _mark(field, Base64) and bytes(text[:1]) == b'"':
        with suppress(InvalidArrayError):
            return base64_bytes(text[1:-1])
        # It may have escapes; other faults are reported for the text.
    limit = _mark(field, JsonBytes) or JsonBytes(_SCALAR_BYTES)
    if len(text) > limit.max_bytes:
        raise InvalidArrayError(f"{len(text):,} bytes of JSON, over {limit.max_bytes:,}")
    if len(text) > _ESCAPED_BYTES and 8 * bytes(text).count(b"\\") > len(text):
        # Some programs escape the plus or slash of base64, none escapes all of it.
        raise InvalidArrayError("most of its characters are escaped")
    return msgspec.json.decode(text)


def _mark(field: FieldInfo, kind: type[_Mark]) -> _Mark | None:
    """The mark of the field, or of its type without null."""
    inner = (getattr(part, "__metadata__", ()) for part in get_args(field.annotation))
    marks = (mark for mark in chain(field.metadata, *inner) if isinstance(mark, kind))
    return next(marks, None)
