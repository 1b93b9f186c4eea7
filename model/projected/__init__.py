"""A re-ranker that projects the descriptors of one extractor: the checkpoint `small`."""
