"""The first stage's lists as JSON Lines, one query a line, as any search engine can write them:

{"query": "q-1", "gallery_ids": ["a", "b"], "global_scores": [0.91, 0.88]}

`global_scores`, the similarities, may be left out. Read line by line: a file may be of any length.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from model.config import reason
from model.formats.format_error import FormatError
from model.formats.text import text_of


@dataclass(frozen=True)
class Shortlist:
    """`gallery_ids` best first, none twice; `global_scores`, where there are any, one an id."""

    query: str
    gallery_ids: list[str]
    global_scores: list[float] | None = None


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid")

    query: str
    gallery_ids: Annotated[list[str], Field(min_length=1)]
    # The bounds that POST /rerank sets.
    global_scores: list[Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]] | None = None


def parse_shortlist(line: str | bytes, max_ids: int) -> Shortlist:
    """One line, of at most `max_ids` ids. Raises ValueError that says what is wrong with it."""
    try:
        parsed = _Line.model_validate_json(line)
    except ValidationError as error:
        raise ValueError(reason(error)) from None
    ids, scores = parsed.gallery_ids, parsed.global_scores
    if len(ids) > max_ids:
        raise ValueError(f"{len(ids)} ids, but a list has at most {max_ids}")
    if len(set(ids)) < len(ids):
        raise ValueError(f"id {Counter(ids).most_common(1)[0][0]!r} occurs twice")
    if scores is not None and len(scores) != len(ids):
        raise ValueError(f"{len(scores)} scores for {len(ids)} ids")
    return Shortlist(parsed.query, ids, scores)


def read_shortlists(path: Path, max_ids: int, first: int = 0) -> Iterator[Shortlist]:
    """Reads lists from number `first` on; empty lines do not count. Raises FormatError naming the
    line."""
    with text_of(path) as file:
        place = 0
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            place += 1
            if place <= first:
                continue
            try:
                shortlist = parse_shortlist(line, max_ids)
            except ValueError as error:
                raise FormatError(f"{path}: line {number}: {error}") from None
            yield shortlist


def count_shortlists(path: Path) -> int:
    """How many lists a file has. Raises FormatError."""
    with text_of(path) as file:
        return sum(1 for line in file if line.strip())
