"""Run a command with its own mounts, for example another /dev/shm, or its own network."""

import subprocess

import pytest


def inside(setup: str, *command: str, kind: str = "mount") -> list[str]:
    """Wrap a command so that it runs in a new namespace, after the shell line `setup`.

    Skips the test if the kernel does not allow namespaces of this kind, an option of unshare.
    """
    enter = ["unshare", "--map-root-user", f"--{kind}", "sh", "-c", f'{setup} && exec "$@"', "sh"]
    try:
        subprocess.run([*enter, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"{kind} namespaces are not available: {error}")
    return [*enter, *command]
