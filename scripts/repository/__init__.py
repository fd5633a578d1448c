"""Builds model repositories: graphs, Python backend steps and their configuration."""
