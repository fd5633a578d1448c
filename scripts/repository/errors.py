"""The one error that a user of the model repository library has to handle."""


class BuildError(Exception):
    """A model repository cannot be built; the message is one line that says what to do next."""
