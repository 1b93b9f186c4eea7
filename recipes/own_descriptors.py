"""Descriptors of your own, of any extractor and size: registered, then a list re-ranked.

    python recipes/own_descriptors.py

The 768 numbers here are made up: 20 objects, each seen in 6 images, which share a part of their
local descriptors. The service needs to be told nothing about them: a collection takes the sizes of
the first images that are registered in it.
"""

from __future__ import annotations

import sys

import click
import numpy as np
from numpy.typing import NDArray

from locore_client import Client, ClientError, image_from_arrays

SIZE, LOCALS = 768, 30
OBJECTS, IMAGES = 20, 6
NOISE = 0.4


@click.command()
@click.option("--url", default="http://127.0.0.1:8000", show_default=True)
@click.option("--collection", default="made-up", show_default=True)
def main(url: str, collection: str) -> None:
    """Register made-up descriptors and re-rank a list for one of the objects."""
    rng = np.random.default_rng(0)
    objects = rng.standard_normal((OBJECTS, LOCALS, SIZE))

    def view(of: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Locals and global. Half of the locals are the object's own, seen through noise; the rest
        is clutter."""
        locals_ = rng.standard_normal((LOCALS, SIZE))
        rows = rng.permutation(LOCALS)[: LOCALS // 2]
        locals_[rows] = objects[of, rows] + 0.7 * locals_[rows]
        # A poor global, as of an image that shows more than the object.
        global_ = locals_.mean(0) + NOISE * rng.standard_normal(SIZE)
        return locals_.astype(np.float32), (global_ / np.linalg.norm(global_)).astype(np.float32)

    views = {f"object-{o}/{i}": view(o) for o in range(OBJECTS) for i in range(IMAGES)}
    query = view(7)
    cosines = {image_id: float(global_ @ query[1]) for image_id, (_, global_) in views.items()}
    shortlist = sorted(cosines, key=lambda image_id: -cosines[image_id])[:100]
    gallery = {i: image_from_arrays(locals_, global_=g) for i, (locals_, g) in views.items()}
    with Client(url) as client:
        client.register(gallery, collection)
        photograph = image_from_arrays(query[0], global_=query[1])
        answer = client.rerank(photograph, shortlist, collection, top_n=IMAGES)
    click.echo(f"before: {' '.join(shortlist[:IMAGES])}")
    click.echo(f"after:  {' '.join(result.id for result in answer.results)}")


if __name__ == "__main__":
    try:
        main()
    except ClientError as error:
        click.echo(f"own_descriptors: {error}", err=True)
        sys.exit(2)
