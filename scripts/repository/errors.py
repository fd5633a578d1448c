"""The error of the model repository library."""


class BuildError(Exception):
    """A model repository cannot be built; the message is one line for the user."""
