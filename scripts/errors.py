"""The base of the errors that commands report in one line."""


class UserError(Exception):
    """An error that the user can fix; the message is one line that says what to do next."""
