"""Progress of long work, reported through callables that the caller passes in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, TypeVar

_Item = TypeVar("_Item")

Progress = Callable[[Iterable[int]], Iterable[int]]
"""Passes numbers through, such as places of queries, while each is being worked on."""

Report = Callable[[str], None]
"""Takes a line of text for the user, such as a file that is left out and why."""

Bar = Callable[[str, int | None], AbstractContextManager[Callable[[int], None]]]
"""Shows a description and a total; the block gets a function that advances the progress."""


class Tracker(Protocol):
    """Passes `items` through, and shows under `description` how many of `total` are done."""

    def __call__(
        self, items: Iterable[_Item], description: str, total: int | None
    ) -> Iterable[_Item]: ...


def untracked(items: Iterable[_Item], description: str, total: int | None) -> Iterable[_Item]:  # noqa: ARG001
    """Shows nothing."""
    return items


def no_bar(description: str, total: int | None) -> AbstractContextManager[Callable[[int], None]]:  # noqa: ARG001
    """Shows nothing."""
    return nullcontext(lambda _: None)


def silent(message: str) -> None:
    """Reports nothing."""


def tracked(
    bar: Bar, description: str, total: int | None, items: Iterable[_Item]
) -> Iterator[_Item]:
    """Passes `items` through under a bar."""
    with bar(description, total) as advance:
        for item in items:
            yield item
            advance(1)
