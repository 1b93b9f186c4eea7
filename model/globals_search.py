"""A first stage in memory: exact search in the globals of one collection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class GlobalsMatrix:
    """`ids` of the images that have a global; `rows` (images, e): float32, of length 1 each."""

    ids: Sequence[str]
    rows: NDArray[np.float32]

    @property
    def dim(self) -> int:
        return int(self.rows.shape[1])

    def nearest(
        self, query: NDArray[np.floating], limit: int, without: str | None = None
    ) -> list[tuple[str, float]]:
        """Ids and cosines of the `limit` nearest, best first, ties in the order of `ids`; not
        `without`, the query itself for example. `query`: (e,), of length 1."""
        cosines = self.rows @ query.astype(np.float32)
        count = min(limit + (without is not None), len(cosines))
        if not count:
            return []
        # All that are at least as near as the last one: in a tie, the first ids count.
        cutoff = np.partition(cosines, -count)[-count]
        candidates = np.flatnonzero(cosines >= cutoff)
        order = candidates[np.argsort(-cosines[candidates], kind="stable")]
        pairs = ((self.ids[place], float(cosines[place])) for place in order)
        return [(image_id, cosine) for image_id, cosine in pairs if image_id != without][:limit]
