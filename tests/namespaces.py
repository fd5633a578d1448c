"""Run a command with its own mounts, for example another /etc/hosts or /dev/shm."""

import subprocess

import pytest


def inside(setup: str, *command: str) -> list[str]:
    """Wrap a command so that it runs in a new mount namespace, after the shell line `setup`.

    Skips the test if the kernel does not allow mount namespaces.
    """
    enter = ["unshare", "--map-root-user", "--mount", "sh", "-c", f'{setup} && exec "$@"', "sh"]
    try:
        subprocess.run([*enter, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"mount namespaces are not available: {error}")
    return [*enter, *command]
