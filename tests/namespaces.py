"""Another view of the file system for one process: other hosts, other shared memory."""

import subprocess

import pytest


def inside(setup: str, *command: str) -> list[str]:
    """Make the command run after a shell line that changes what it sees, and nobody else."""
    enter = ["unshare", "--map-root-user", "--mount", "sh", "-c", f'{setup} && exec "$@"', "sh"]
    try:
        subprocess.run([*enter, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no mount namespaces here: {error}")
    return [*enter, *command]
