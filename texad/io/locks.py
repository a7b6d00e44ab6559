"""Locks: one process at a time writes to a file or into a folder.

The system ends a lock with the process that holds it, however that ends. A lock can be shared with
a process that this one starts: a kernel that outlives its batch by a moment then still keeps others
out. So the open file is our own, and `filelock` locks it.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from texad.io.atomic import remove_leftovers

LOCK = ".lock"
HELD = "TEXAD_HELD"  # environment variable of a kernel: the folder that its batch holds for it
WAIT_SECONDS = 0.5

_descriptors: dict[Path, int] = {}  # of the locks that this process holds


def lock(file: Path) -> int | None:
    """Lock a file, which is made if need be.

    Returns
    -------
    int or None
        The open file, for `unlock`; None if another process has locked or just deleted the file.
    """
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    is_locked = True
    with suppress(OSError):  # the file system knows no locks: better without than not at all
        is_locked = filelock.lock_descriptor(descriptor, blocking=False)
    if is_locked and os.fstat(descriptor).st_nlink:
        return descriptor
    os.close(descriptor)
    return None


def unlock(descriptor: int) -> None:
    """End what `lock` began, for the processes that share the open file, too."""
    with suppress(OSError):
        filelock.unlock_descriptor(descriptor)
    os.close(descriptor)


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold a lock file while the block runs, after waiting until nobody else does.

    The file is made for the block, and removed after it.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    while (descriptor := lock(file)) is None:
        time.sleep(WAIT_SECONDS)
    try:
        yield
    finally:
        with suppress(OSError):  # Windows removes no open file
            file.unlink()
        unlock(descriptor)


def take(folder: Path) -> bool:
    """Become the one process that writes into a folder, unless another one is.

    Temporary files that killed processes left in the folder are removed now, since nobody else is
    writing there.

    Parameters
    ----------
    folder : Path
        Made if need be. The lock is the empty file `.lock` in it, which stays.

    Returns
    -------
    bool
        False if the folder is taken already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if (descriptor := lock(folder / LOCK)) is None:
        return False
    _descriptors[folder] = descriptor
    remove_leftovers(folder, "**/.*")
    return True


def leave(folder: Path) -> None:
    """End what `take` began; nothing if this process does not hold the folder."""
    if (descriptor := _descriptors.pop(folder, None)) is not None:
        unlock(descriptor)


def is_held(folder: Path) -> bool:
    """Tell whether this process, or the batch that started it, holds the folder."""
    return folder in _descriptors or os.environ.get(HELD) == str(folder)


def descriptor(folder: Path) -> int | None:
    """Open file behind the lock of a folder, to be handed to a kernel.

    The lock then lasts until both processes have ended.
    """
    return _descriptors.get(folder)


@contextmanager
def alone(folder: Path, waits: Callable[[int], None]) -> Iterator[None]:
    """Hold a folder while the block runs, after waiting until nobody else does.

    Parameters
    ----------
    folder : Path
    waits : callable
        Called before each wait of half a second, with the number of waits so far. An exception
        that it raises ends the waiting.
    """
    waited = 0
    while not take(folder):
        waits(waited)
        waited += 1
        time.sleep(WAIT_SECONDS)
    try:
        yield
    finally:
        leave(folder)
