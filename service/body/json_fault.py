"""The place and the kind of a fault that msgspec found in a JSON text."""

from __future__ import annotations

import re

import msgspec

_UNKNOWN = "Object contains unknown field `"
OUT_OF_RANGE = "Number out of range"


def fault_of(error: msgspec.ValidationError) -> tuple[str, str]:
    """Returns the place, written as in the contract (`images.3.id`), and what is wrong there."""
    message = str(error)
    what, _, path = message.rpartition(" - at `$") if message.endswith("`") else (message, "", "")
    what, path = (what, path[:-1]) if what else (message, "")
    place = re.sub(r"\[(\d+)\]", r".\1", path).removeprefix(".")
    if what.startswith(_UNKNOWN):
        unknown = what.removeprefix(_UNKNOWN).removesuffix("`")
        return joined_place(place, unknown), "Extra inputs are not permitted"
    return place, what.replace("`", "")


def joined_place(*parts: object) -> str:
    return ".".join(text for text in map(str, parts) if text)
