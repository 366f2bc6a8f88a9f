"""Error of checkpoints."""


class CheckpointError(ValueError):
    """Weights cannot be read or do not fit the model. The message names the file, every wrong key and the remedy."""
