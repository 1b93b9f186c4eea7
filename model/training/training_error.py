"""The error of a training that cannot go on."""


class TrainingError(ValueError):
    """The data, the sizes or a saved state do not fit. The message is one line."""
