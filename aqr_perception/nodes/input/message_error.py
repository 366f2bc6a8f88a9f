"""What is wrong with a message, said so that its user can mend it."""


class MessageError(ValueError):
    """A message cannot be used; the text names the topic, the value found, the value needed and the remedy.

    Attributes:
        problem: a few words, also the `reason` in the array's sensor state, e.g. ``truncated JPEG``.
    """

    def __init__(self, topic: str, problem: str, found: object, needed: str, remedy: str) -> None:
        super().__init__(f"{topic}: {problem}: found {found}, needed {needed}; {remedy}")
        self.topic = topic
        self.problem = problem
        self.found = found
        self.needed = needed
        self.remedy = remedy


class TransformError(MessageError):
    """TF does not connect two frames at the times asked for."""
