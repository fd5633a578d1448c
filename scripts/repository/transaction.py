"""Changes a folder as a whole: a staged copy takes its place, or everything stays as it was.

The copy is a sibling of the folder, so that nothing that reads the folder sees it. Linux exchanges
the two in one step (RENAME_EXCHANGE), and a killed process leaves only a copy that the next one
deletes. Everything is flushed to the disk before and after the exchange, so that this also holds
for a crash of the machine, as far as the disk keeps what it has confirmed.
"""

import ctypes
import errno
import fcntl
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType

from scripts.repository.errors import BuildError

logger = logging.getLogger(__name__)

MOUNTS = Path("/proc/self/mountinfo")
# From Linux's fcntl.h and fs.h.
AT_FDCWD = -100
RENAME_EXCHANGE = 2
# What renameat2 returns on a file system, kernel or sandbox without RENAME_EXCHANGE.
NOT_SUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM}
# What a rename of a mount point returns, and of a folder from a lower layer of overlayfs.
CANNOT_MOVE = {errno.EBUSY, errno.EXDEV}


class Transaction:
    """Changes of a folder that take effect together, one process at a time.

        with Transaction(Path("folder")) as transaction:
            (transaction.stage() / "new").write_text("text")
            transaction.commit()

    What is not committed when the block ends is discarded. A second process waits at the start of
    its block until the first has left.

    Raises:
        BuildError: the folder cannot be replaced; the message says why.
        OSError: a file cannot be read or written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._staging = self._folder.parent / f".{self._folder.name}.staging"
        self._new, self._old = self._staging / "new", self._staging / "old"
        self._is_staged = False
        self._resources = ExitStack()

    def __enter__(self) -> "Transaction":
        _check_replaceable(self._folder)
        with ExitStack() as stack:
            stack.enter_context(_locked(self._staging))
            self._clear()
            self._resources = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._resources:
            self._clear()

    @property
    def current(self) -> Path:
        """The staged copy if there is one, or else the folder."""
        return self._new if self._is_staged else self._folder

    def stage(self) -> Path:
        """Return the staged copy of the folder, which is empty for a new folder.

        Its files are hard links to those of the folder, so replace files and never write into them.
        """
        if not self._is_staged:
            if self._folder.exists():
                _copy(self._folder, self._new)
            else:
                self._new.mkdir()
            self._is_staged = True
        return self._new

    def commit(self) -> None:
        """Put the staged copy in the folder's place."""
        _sync(self._new)
        try:
            if self._folder.exists():
                self._replace()
            else:
                self._new.rename(self._folder)
        except OSError as error:
            if error.errno in CANNOT_MOVE:
                raise _cannot_replace(self._folder) from error
            raise
        _sync(self._folder.parent)
        self._clear()

    def _replace(self) -> None:
        if _exchange(self._new, self._folder):
            return
        logger.warning(
            "the file system of %s cannot exchange folders: for a moment there is none",
            self._folder,
        )
        self._folder.rename(self._old)
        self._new.rename(self._folder)

    def _clear(self) -> None:
        """Delete both trees of the staging folder, which may be those of a killed process."""
        self._is_staged = False
        if self._old.exists() and not self._folder.exists():
            self._old.rename(self._folder)  # it was killed between two renames
        for tree in (self._new, self._old):
            shutil.rmtree(tree, ignore_errors=True)
            if tree.exists():
                logger.warning("cannot delete %s; delete it before the next build", tree)


@contextmanager
def _locked(staging: Path) -> Iterator[None]:
    """Create a folder, hold a lock on it, and delete it if it is empty at the end."""
    while (descriptor := _acquire(staging)) is None:
        pass
    with ExitStack() as stack:
        stack.callback(os.close, descriptor)
        try:
            yield
        finally:
            with suppress(OSError):
                staging.rmdir()


def _acquire(staging: Path) -> int | None:
    """Create a folder and lock it; None if the process that held the lock has deleted it."""
    try:
        staging.parent.mkdir(parents=True, exist_ok=True)
        staging.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise BuildError(
            f"cannot create {staging}: {error.strerror}; choose another folder"
        ) from error
    with ExitStack() as stack, suppress(FileNotFoundError):
        descriptor = os.open(staging, os.O_RDONLY | os.O_DIRECTORY)
        stack.callback(os.close, descriptor)
        _lock(descriptor, staging)
        if os.path.samestat(os.fstat(descriptor), staging.stat()):
            stack.pop_all()
            return descriptor
    return None


def _lock(descriptor: int, staging: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        logger.warning("waiting for another build, which holds %s", staging)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        logger.warning("cannot lock %s (%s); run one build at a time", staging, error.strerror)


def _check_replaceable(folder: Path) -> None:
    working = Path.cwd()
    if folder in {working, *working.parents}:
        raise BuildError(
            f"a build replaces {folder}: run it from a folder outside, not in {working}"
        )
    mounts = [line.split()[4] for line in os.fsdecode(MOUNTS.read_bytes()).splitlines()]
    escaped = str(folder).replace("\\", r"\134").replace(" ", r"\040")
    if escaped in mounts:
        raise _cannot_replace(folder)
    if inside := [mount for mount in mounts if mount.startswith(f"{escaped}/")]:
        raise BuildError(
            f"a build replaces {folder}, but {inside[0]} is a mount point: unmount it, or choose "
            "another folder"
        )


def _cannot_replace(folder: Path) -> BuildError:
    return BuildError(
        f"{folder} is a mount point, which a build cannot replace; choose a folder in it, such as "
        f"--output {folder / 'repository'}"
    )


def _copy(source: Path, target: Path) -> None:
    """Copy a folder with its attributes; files become hard links, symbolic links stay."""
    target.mkdir()
    with os.scandir(source) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                _copy(Path(entry.path), target / entry.name)
            else:
                _link(Path(entry.path), target / entry.name)
    info = source.stat()
    with suppress(PermissionError):  # only root may give files away
        os.chown(target, info.st_uid, info.st_gid)
    shutil.copystat(source, target)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # the file system has no hard links, or the file belongs to another user
        shutil.copy2(source, target, follow_symlinks=False)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step; False means that this is not supported here."""
    libc = ctypes.CDLL(None, use_errno=True)
    paths = os.fsencode(one), os.fsencode(other)
    if libc.renameat2(AT_FDCWD, paths[0], AT_FDCWD, paths[1], RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in NOT_SUPPORTED:
        return False
    raise OSError(number, os.strerror(number), str(other))


def _sync(folder: Path) -> None:
    """Write everything of a folder's file system to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(descriptor)
