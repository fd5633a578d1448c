"""What runs in the server's container: its start and its health check.

The container has only these modules, `scripts/embedded/access.py`, `scripts/errors.py` and Python's
standard library.
"""
