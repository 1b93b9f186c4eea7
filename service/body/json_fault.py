"""Where in a JSON text msgspec met a fault, and which."""

from __future__ import annotations

import re

import msgspec

_UNKNOWN = "Object contains unknown field `"
OUT_OF_RANGE = "Number out of range"


def fault_of(error: msgspec.ValidationError) -> tuple[str, str]:
    """(the place as the contract writes one, `images.3.id`; what is wrong there)."""
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
