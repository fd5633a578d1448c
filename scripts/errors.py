"""The base of the errors that commands report in one line, and the line of other programs."""


class UserError(Exception):
    """An error that the user can fix; the message is one line that says what to do next."""


def last_line(*outputs: str) -> str:
    """Return the last line of the first output that is not empty; programs end with the reason."""
    lines = next(filter(None, (output.strip().splitlines() for output in outputs)), ["no output"])
    return lines[-1]
