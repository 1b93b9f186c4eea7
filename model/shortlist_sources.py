"""Shortlists of many queries: from a file of either format, or by a search with the globals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from model.descriptor_file import DescriptorReader
from model.formats.format_error import FormatError
from model.formats.nn_file import Neighbours, read_neighbours
from model.formats.shortlists import Shortlist, count_shortlists, read_shortlists
from model.global_rows import GlobalRows


@dataclass(frozen=True)
class ShortlistSource:
    """Lists among the images of `gallery` for those of `queries`: of a file of JSON Lines,
    `shortlists`; or else the first `top` places of a file `neighbours`, nn_*.pkl; or else the `top`
    nearest by the globals."""

    queries: DescriptorReader
    gallery: DescriptorReader
    top: int
    max_ids: int
    """Ids that a list of `shortlists` may have."""
    shortlists: Path | None = None
    neighbours: Path | None = None

    def count(self) -> int:
        """How many lists there are. Raises FormatError."""
        if self.shortlists is not None:
            return count_shortlists(self.shortlists)
        return len(self.queries)

    def lists(self, first: int = 0) -> Iterator[Shortlist]:
        """Yields lists from number `first` on. Raises FormatError."""
        if self.shortlists is not None:
            return read_shortlists(self.shortlists, self.max_ids, first)
        if self.neighbours is not None:
            return self._listed(self.neighbours, first)
        return self._searched(first)

    def _listed(self, path: Path, first: int) -> Iterator[Shortlist]:
        lists = read_neighbours(path, len(self.queries), len(self.gallery), self.top)
        for query in range(first, len(self.queries)):
            yield self._shortlist(query, lists, query)

    def _searched(self, first: int) -> Iterator[Shortlist]:
        """Block by block of the queries."""
        try:
            from model.first_stage import Search, nearest_in_blocks
        except ModuleNotFoundError as error:
            raise FormatError(
                f"lists by the globals need {error.name}: pip install 'locore[first-stage]'"
            ) from None
        with GlobalRows(self.gallery.path) as gallery, GlobalRows(self.queries.path) as queries:
            try:
                blocks = nearest_in_blocks(queries, gallery, Search(self.top), first=first)
                for start, lists in blocks:
                    for place in range(max(0, first - start), len(lists.images)):
                        yield self._shortlist(start + place, lists, place)
            except ValueError as error:
                raise FormatError(str(error)) from None

    def _shortlist(self, query: int, lists: Neighbours, place: int) -> Shortlist:
        return Shortlist(
            self.queries.ids[query],
            [self.gallery.ids[image] for image in lists.images[place].tolist()],
            lists.similarities[place].tolist(),
        )
