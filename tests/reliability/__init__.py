"""Long measurements of what keeps the server answering: `python -m tests.reliability`.

`make test` runs short forms of them. Each section yields rows of a table in docs/reliability.md.
"""
