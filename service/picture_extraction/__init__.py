"""Descriptors of pictures that come over HTTP: a queue, and the process that extracts."""
