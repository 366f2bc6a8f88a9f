"""What is wrong with a bag, or with what should become one."""


class BagError(ValueError):
    """A file cannot be read or written; the text names it, what was found, what is needed and the remedy."""
