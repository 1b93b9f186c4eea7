"""Shortlists for `locore rerank-batch` that are not written as JSON Lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from model.descriptor_file import DescriptorReader
from model.formats.nn_file import read_neighbours
from model.formats.shortlists import Shortlist
from model.global_rows import GlobalRows


def listed_neighbours(
    path: Path, queries: DescriptorReader, gallery: DescriptorReader, top: int, first: int
) -> Iterator[Shortlist]:
    """The lists of an nn_*.pkl from that of query `first` on, or their first `top` places. Raises
    FormatError."""
    found = read_neighbours(path, len(queries), len(gallery), top)
    for query in range(first, len(queries)):
        yield _shortlist(
            queries.ids[query], gallery.ids, found.images[query], found.similarities[query]
        )


def searched(
    queries: DescriptorReader, gallery: DescriptorReader, top: int, first: int
) -> Iterator[Shortlist]:
    """The `top` nearest by the globals, searched for block by block of the queries. Raises
    FormatError, and click.UsageError where files do not go together."""
    try:
        from model.first_stage import Search, nearest_in_blocks
    except ModuleNotFoundError as error:
        raise click.UsageError(
            f"lists by the globals need {error.name}: pip install 'locore[first-stage]'"
        ) from None
    with GlobalRows(gallery.path) as rows, GlobalRows(queries.path) as asked:
        try:
            for start, found in nearest_in_blocks(asked, rows, Search(top), first=first):
                for place in range(max(0, first - start), len(found.images)):
                    yield _shortlist(
                        queries.ids[start + place],
                        gallery.ids,
                        found.images[place],
                        found.similarities[place],
                    )
        except ValueError as error:
            raise click.UsageError(str(error)) from None


def _shortlist(
    query: str,
    ids: Sequence[str],
    images: NDArray[np.int64],
    similarities: NDArray[np.float32],
) -> Shortlist:
    return Shortlist(query, [ids[i] for i in images.tolist()], similarities.tolist())
