"""Errors in messages, with the remedy."""


class MessageError(ValueError):
    """A message cannot be used. The text names the topic, the value found, the value needed and the remedy.

    Attributes:
        problem: a few words, e.g. ``truncated JPEG``; also the `reason` in SensorState.
    """

    def __init__(self, topic: str, problem: str, found: object, needed: str, remedy: str) -> None:
        super().__init__(f"{topic}: {problem}: found {found}, needed {needed}; {remedy}")
        self.problem = problem


class TransformError(MessageError):
    """TF does not connect two frames at the requested times."""
