"""Walks tar archives that anybody may have made."""

import tarfile
from collections.abc import Iterator

# What tarfile raises for headers that are not valid.
DAMAGED = (tarfile.TarError, ValueError, IndexError, OverflowError, RecursionError)


def members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Read one member's header after the other, and keep none of them.

    Raises:
        Exception: one of `DAMAGED`; the archive is not valid.
    """
    while member := archive.next():
        if member.size < 0:  # older versions of tarfile would go back, again and again
            raise tarfile.ReadError("negative size")
        archive.members.clear()  # type: ignore[attr-defined] # it would keep them all
        yield member
