"""Re-ranking behind FAISS: an index of the global descriptors finds the shortlist, the service
gives it a better order.

    python recipes/behind_faiss.py .locore/sample/{gallery,queries}.h5

Of the sample gallery we know what is right: `retina-1/2.jpg` shows what the query `retina-1.jpg`
shows. R@1 is the share of the queries whose first image is right.
"""

from __future__ import annotations

import sys
from pathlib import Path, PurePosixPath

import click
import faiss

from locore_client import Client, ClientError
from model.descriptor_file import DescriptorFileError, DescriptorReader

SHOWN = 6
"""How many images of an order are printed."""


@click.command()
@click.argument("gallery", type=click.Path(path_type=Path))
@click.argument("queries", type=click.Path(path_type=Path))
@click.option("--url", default="http://127.0.0.1:8000", show_default=True)
@click.option("--collection", default="faiss", show_default=True)
@click.option("--top", type=click.IntRange(1, 1600), default=100, show_default=True)
@click.option("--show", help="A query whose order is printed; the first by default.")
def main(
    gallery: Path, queries: Path, url: str, collection: str, top: int, show: str | None
) -> None:
    """Search GALLERY.h5 for every image of QUERIES.h5 (`locore extract` makes such files)."""
    right_before = right_after = 0
    with (
        Client(url) as client,
        DescriptorReader(gallery) as images,
        DescriptorReader(queries) as query_reader,
    ):
        # The index has the globals, the service the locals, under the same ids.
        vectors = images.globals()
        index = faiss.IndexFlatIP(vectors.shape[1])  # unit vectors: inner products are cosines
        index.add(vectors)
        client.register(images, collection)

        cosines, places = index.search(query_reader.globals(), min(top, len(images)))
        for n, (query_id, query) in enumerate(query_reader):
            shortlist = [images.ids[place] for place in places[n]]
            answer = client.rerank(query, shortlist, collection, global_scores=cosines[n])
            better = [result.id for result in answer.results]
            if query_id == (show or query_reader.ids[0]):
                click.echo(f"{query_id}, before: {' '.join(shortlist[:SHOWN])}")
                click.echo(f"{query_id}, after:  {' '.join(better[:SHOWN])}")
            right_before += is_right(query_id, shortlist[0])
            right_after += is_right(query_id, better[0])
        total = len(query_reader)
    click.echo(f"R@1 of {total} queries: {right_before / total:.1%} before, ", nl=False)
    click.echo(f"{right_after / total:.1%} after")


def is_right(query_id: str, image_id: str) -> bool:
    """In the sample an image's folder has its query's name."""
    return PurePosixPath(image_id).parts[0] == PurePosixPath(query_id).stem


if __name__ == "__main__":
    try:
        main()
    except (ClientError, DescriptorFileError) as error:
        click.echo(f"behind_faiss: {error}", err=True)
        sys.exit(2)
