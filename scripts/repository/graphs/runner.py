from scripts.repository.graphs.prepare import Runner  # noqa: F401
