"""Commands of this repository, started as processes."""

import sys

from coverage import Coverage


def measured(module: str) -> list[str]:
    """The command `python -u -m MODULE`, whose coverage is measured if that of the tests is.

    The processes that it starts are not measured. Python imports Coverage.py in 0.3 s.
    """
    is_measuring = Coverage.current() is not None
    return [
        sys.executable,
        "-u",
        *(["-m", "coverage", "run"] if is_measuring else []),
        "-m",
        module,
    ]
