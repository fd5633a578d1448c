"""Reads docker-compose.yml as `docker compose config` does, without Docker."""

import re
import shlex
from typing import Any

import yaml

from tests.conftest import ROOT

FILE = ROOT / "docker-compose.yml"
# ${NAME}, ${NAME:-default} or ${NAME:+replacement}, without another variable inside.
VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?:(?P<operator>:[-+])(?P<word>[^${}]*))?\}")


def service(name: str, **environment: str) -> dict[str, Any]:
    """Return a service with the variables of the environment replaced."""
    found: dict[str, Any] = interpolate(
        yaml.safe_load(FILE.read_text())["services"][name], environment
    )
    return found


def arguments(name: str, **environment: str) -> list[str]:
    """Return the command line that a service runs."""
    settings = service(name, **environment)
    return [
        word for key in ("entrypoint", "command") for word in shlex.split(settings.get(key, ""))
    ]


def interpolate(value: Any, environment: dict[str, str]) -> Any:
    """Replace variables in all strings of a YAML value."""
    if isinstance(value, dict):
        return {key: interpolate(item, environment) for key, item in value.items()}
    if isinstance(value, list):
        return [interpolate(item, environment) for item in value]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        found = environment.get(match["name"], "")
        if match["operator"] == ":+":
            return match["word"] if found else ""
        return found or match["word"] or ""

    replaced = VARIABLE.sub(replace, value)
    return replaced if replaced == value else interpolate(replaced, environment)
