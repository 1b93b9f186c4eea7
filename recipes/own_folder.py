"""A folder of your own images, from files to a search by a photograph, with no index beside it: a
few thousand globals are compared faster than an index is made.

    python recipes/own_folder.py PHOTOS query.jpg

Needs the extractor, `pip install 'locore[extract]'`. What is extracted here at every start,
`locore extract PHOTOS -o photos.h5` keeps in a file.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from locore_client import Client, ClientError
from model.descriptors import ImageDescriptors
from model.extraction.extractor import ExtractorError, NoDescriptorsError
from model.extraction.images import UnreadableImageError, extract_images, find_images, read_image
from model.extraction.registry import load_extractor
from service.cli.common import tracked

LOCALS = 48
"""Local descriptors of an image: as many as the shipped checkpoint reads."""


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("query", type=click.Path(path_type=Path))
@click.option("--url", default="http://127.0.0.1:8000", show_default=True)
@click.option("--collection", default="folder", show_default=True)
@click.option("--top", type=click.IntRange(1, 1600), default=100, show_default=True)
@click.option("--show", type=click.IntRange(1), default=6, show_default=True)
def main(folder: Path, query: Path, url: str, collection: str, top: int, show: int) -> None:
    """Search FOLDER for the images that show what the photograph QUERY shows."""
    files, picture = find_images([folder]), read_image(query)
    extractor = load_extractor("efficientnet-lite0")
    photograph = extractor.extract(picture, LOCALS)
    ids: list[str] = []
    vectors: list[NDArray[np.floating]] = []

    def extracted() -> Iterator[tuple[str, ImageDescriptors]]:
        openers = {image_id: partial(read_image, path) for image_id, path in files.items()}
        extracting = extract_images(extractor, openers, LOCALS, os.cpu_count() or 1)
        for image_id, result in tracked(extracting, "Extracting", len(files)):
            if isinstance(result, UnreadableImageError):
                click.echo(f"left out: {result}", err=True)
                continue
            ids.append(image_id)
            vectors.append(result.global_)
            yield image_id, result.for_reranking()

    with Client(url) as client:
        # Images are extracted as the client sends them: the folder may be larger than the memory.
        client.register(extracted(), collection)
        if not ids:
            raise UnreadableImageError(f"{folder}: no image that can be read")
        cosines = np.stack(vectors) @ photograph.global_
        shortlist = np.argsort(-cosines, kind="stable")[:top]
        answer = client.rerank(
            photograph.for_reranking(),
            [ids[place] for place in shortlist],
            collection,
            global_scores=cosines[shortlist],
            top_n=show,
        )
    click.echo(f"{len(ids)} images, the first {len(shortlist)} re-ranked")
    for rank, result in enumerate(answer.results, start=1):
        click.echo(f"{rank}. {result.id}  {result.relevance_score:.2f}  (was {result.index + 1}.)")


if __name__ == "__main__":
    try:
        main()
    except (ClientError, ExtractorError, NoDescriptorsError, UnreadableImageError) as error:
        click.echo(f"own_folder: {error}", err=True)
        sys.exit(2)
