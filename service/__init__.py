"""The online service: HTTP, the gallery in Redis, and batches of windows for the model."""

__version__ = "0.1.0"
