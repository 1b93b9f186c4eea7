"""Training a re-ranker on lists."""
