"""The error of the model repository library."""

from scripts.errors import UserError


class BuildError(UserError):
    """A model repository cannot be built."""
