"""The clients' shared memory."""

from client._shared_memory import DEV_SHM, PREFIX


def files() -> set[str]:
    """Return the names of all regions in /dev/shm."""
    return {path.name for path in DEV_SHM.glob(f"{PREFIX}*")}
