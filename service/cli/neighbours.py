"""locore neighbours"""

from __future__ import annotations

from pathlib import Path

import click

from model.formats.nn_file import write_neighbours
from model.global_rows import GlobalRows
from service.cli.common import any_path, progress_bar


@click.command()
@click.option(
    "--gallery",
    "gallery_path",
    type=any_path,
    required=True,
    help="Globals of the gallery: a descriptor file, or a raw *_global.pt.",
)
@click.option(
    "--queries", "queries_path", type=any_path, help="Globals of the queries, in the same formats."
)
@click.option("--dim", type=click.IntRange(1), help="Dimensions of a raw file, 768 for DINOv2.")
@click.option(
    "-k",
    "max_length",
    type=click.IntRange(1),
    default=1600,
    show_default=True,
    help="Length of a list, at most the size of the gallery.",
)
@click.option("-o", "--output", type=any_path, required=True, help="The nn_*.pkl to write.")
@click.option(
    "--without-self",
    is_flag=True,
    help="The queries are the gallery; an image is left out of its own list.",
)
@click.option(
    "--block",
    type=click.IntRange(1),
    default=65536,
    show_default=True,
    help="Gallery images in memory at a time. Affects the time, never the lists.",
)
@click.option(
    "--query-block",
    type=click.IntRange(1),
    default=8192,
    show_default=True,
    help="Queries in memory at a time. Affects the time, never the lists.",
)
def neighbours(
    gallery_path: Path,
    queries_path: Path | None,
    dim: int | None,
    max_length: int,
    output: Path,
    without_self: bool,
    block: int,
    query_block: int,
) -> None:
    """Find every query's nearest gallery images by their globals: the shortlists to re-rank.

    The search is exact, by cosine. Images of equal similarity keep the order of the gallery.
    """
    if without_self == (queries_path is not None):
        raise click.UsageError(
            "give either --queries, or --without-self if the queries are the gallery"
        )
    if output.is_dir() or not output.parent.is_dir():
        raise click.UsageError(f"{output}: cannot be written")
    try:
        from model.first_stage import Search, nearest
    except ModuleNotFoundError as error:
        raise click.UsageError(
            f"locore neighbours needs {error.name}: pip install 'locore[first-stage]'"
        ) from None
    search = Search(max_length, without_self, block, query_block)
    with (
        GlobalRows(gallery_path, dim) as gallery,
        GlobalRows(queries_path or gallery_path, dim) as queries,
    ):
        steps = search.steps(len(queries), len(gallery))
        try:
            with progress_bar("Searching", steps) as advance:
                lists = nearest(queries, gallery, search, advance)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        count = len(gallery)
    write_neighbours(output, lists)
    length = lists.images.shape[1]
    click.echo(
        f"{len(lists.images)} lists of {length} among {count} images written to {output}", err=True
    )
