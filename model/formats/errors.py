"""What is wrong with a published file."""

from __future__ import annotations


class FormatError(ValueError):
    """A file that is not in its published format; the message is one line and names the file."""
