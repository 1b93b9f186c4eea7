"""Fewer locals of an image: similar ones are merged.

Token pooling (Clavié, Chaffin & Adams, "Reducing the footprint of multi-vector retrieval with
minimal performance impact via token pooling", 2024), for images.
"""

from __future__ import annotations

import numpy as np

from model.descriptors import ImageDescriptors, normalised


def pooled(image: ImageDescriptors, count: int) -> ImageDescriptors:
    """At most `count` locals, by hierarchical clustering (Ward): each is the mean of a cluster, of
    length 1, and has the place and the scale of the strongest local in it. An image with `count`
    valid locals or fewer is returned unchanged; otherwise its padding is dropped."""
    # Imported here, since every command would wait a second for it.
    from scipy.cluster.hierarchy import fcluster, ward

    valid = image.without_padding()
    if valid.count <= count:
        return image
    if count == 1:
        clusters = np.ones(valid.count, np.int32)
    else:
        clusters = fcluster(ward(valid.locals.astype(np.float64)), count, "maxclust")
    names, strongest = np.unique(clusters, return_index=True)
    order = np.argsort(strongest)
    sums = np.stack([valid.locals[clusters == name].sum(axis=0) for name in names[order]])
    return ImageDescriptors(
        normalised(sums, "pooled locals"), valid.scales[strongest[order]], valid.global_
    )
