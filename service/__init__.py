"""The online service: HTTP, the gallery in Redis, and windows batched for the model."""

__version__ = "0.1.0"
