"""Re-ranking behind Qdrant: a point has an image's global descriptor as its vector and the id that
the image has in the service in its payload.

    python recipes/behind_qdrant.py .locore/sample/{gallery,queries}.h5

Without --qdrant it is Qdrant's in-memory client, to try things out. What is filtered in Qdrant (by
shop, by date, …) is filtered before the re-ranking: only what Qdrant found is re-ranked.
"""

from __future__ import annotations

import sys
from pathlib import Path, PurePosixPath

import click
from qdrant_client import QdrantClient
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse
from qdrant_client.models import Distance, PointStruct, VectorParams

from locore_client import Client, ClientError
from model.descriptor_file import DescriptorFileError, DescriptorReader

SHOWN = 6
"""How many images of an order are printed."""


@click.command()
@click.argument("gallery", type=click.Path(path_type=Path))
@click.argument("queries", type=click.Path(path_type=Path))
@click.option("--url", default="http://127.0.0.1:8000", show_default=True)
@click.option("--qdrant", default=":memory:", show_default=True, help="http://…:6333, for one.")
@click.option("--collection", default="qdrant", show_default=True, help="Its name in both.")
@click.option("--top", type=click.IntRange(1, 1600), default=100, show_default=True)
@click.option("--show", help="A query whose order is printed; the first by default.")
def main(
    gallery: Path, queries: Path, url: str, qdrant: str, collection: str, top: int, show: str | None
) -> None:
    """Search GALLERY.h5 for every image of QUERIES.h5 (`locore extract` makes such files)."""
    # Its check of versions would warn, in lines of its own, of a server that is away.
    search = QdrantClient(qdrant, check_compatibility=False)
    right_before = right_after = 0
    with (
        Client(url) as client,
        DescriptorReader(gallery) as images,
        DescriptorReader(queries) as query_reader,
    ):
        vectors = images.globals()
        if not search.collection_exists(collection):
            size = VectorParams(size=vectors.shape[1], distance=Distance.COSINE)
            search.create_collection(collection, vectors_config=size)
        search.upload_points(
            collection,
            (
                PointStruct(id=n, vector=vectors[n].tolist(), payload={"gallery_id": image_id})
                for n, image_id in enumerate(images.ids)
            ),
            wait=True,
        )
        client.register(images, collection)

        query_vectors = query_reader.globals()
        for n, (query_id, query) in enumerate(query_reader):
            points = search.query_points(collection, query_vectors[n], limit=top).points
            shortlist = [point.payload["gallery_id"] for point in points if point.payload]
            cosines = [point.score for point in points if point.payload]
            answer = client.rerank(query, shortlist, collection, global_scores=cosines)
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
        click.echo(f"behind_qdrant: {error}", err=True)
        sys.exit(2)
    except (ResponseHandlingException, UnexpectedResponse) as error:
        click.echo(f"behind_qdrant: Qdrant: {error}", err=True)
        sys.exit(2)
