"""The error of this package."""

from scripts.errors import UserError


class EvaluationError(UserError):
    """A data set, a reference or a result cannot be used."""
