"""What a training cannot go on with."""


class TrainingError(ValueError):
    """Data, sizes or a saved state that do not fit; the message is one line."""
