"""The errors of adaptation."""

from scripts.errors import UserError


class AdaptationError(UserError):
    """A classifier cannot be adapted; the message is one line that says what to do next."""
