"""The re-ranker: descriptors in, scores out. Knows nothing of HTTP or Redis."""
