"""The sum of all standardised relations of an image to the query: what our network computes before
training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from model.descriptors import ImageDescriptors
from model.relations import TO_QUERY
from model.tokens import relate
from model.window_batch import collate
from model.windows import Window

_MAX_LOCALS = 48


@torch.inference_mode()
def relation_sum(
    query: ImageDescriptors, gallery: Sequence[ImageDescriptors]
) -> NDArray[np.float32]:
    """(len(gallery),)"""
    batch = collate([Window(query, gallery)], descriptors_per_image=_MAX_LOCALS)
    relations = relate(batch, max_matches=1)
    summed = relations.image[0, 1:, : len(TO_QUERY)].sum(1)
    return np.asarray(summed.numpy(), np.float32)
