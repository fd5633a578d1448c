"""Reads docker-compose.yml as `docker compose config` does, without Docker."""

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import ROOT

FILE = ROOT / "docker-compose.yml"
DOCKERFILE = ROOT / "Dockerfile"
# ${NAME}, ${NAME:-default} or ${NAME:+replacement}, without another variable inside.
VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?:(?P<operator>:[-+])(?P<word>[^${}]*))?\}")


def service(name: str, **environment: str) -> dict[str, Any]:
    """Return a service with the variables of the environment replaced."""
    found: dict[str, Any] = interpolate(
        yaml.safe_load(FILE.read_text())["services"][name], environment
    )
    return found


def secret(name: str, **environment: str) -> dict[str, str]:
    """Return a secret with the variables of the environment replaced."""
    found: dict[str, str] = interpolate(
        yaml.safe_load(FILE.read_text())["secrets"][name], environment
    )
    return found


def arguments(name: str, **environment: str) -> list[str]:
    """Return the command line that a service runs."""
    settings = service(name, **environment)
    return [
        word for key in ("entrypoint", "command") for word in shlex.split(settings.get(key, ""))
    ]


def copies(stage: str) -> list[tuple[Path, str]]:
    """Return each file or folder that a stage of the Dockerfile copies, and its target there."""
    (text,) = re.findall(rf"(?ms)^FROM \S+ AS {stage}$(.*?)(?=^FROM |\Z)", DOCKERFILE.read_text())
    words = [line.split()[1:] for line in text.splitlines() if line.startswith("COPY ")]
    return [(ROOT / source, target) for *sources, target in words for source in sources]


def install_server(folder: Path) -> None:
    """Copy the modules of the server's image into a folder that stands for its /app."""
    for source, target in copies("server"):
        if source.is_dir():
            shutil.copytree(source, folder / target)
        elif source.suffix == ".py":
            (folder / target).mkdir(parents=True, exist_ok=True)
            shutil.copy(source, folder / target)


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
