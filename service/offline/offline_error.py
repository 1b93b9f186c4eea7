class OfflineError(ValueError):
    """Lists that cannot be re-ranked; the message is one line and names the file or the query."""
