"""Files that are whole or not there, and folders that one process fills at a time.

Atomic writes, hashes to know a file by, locks, and arrays on disk that take no memory.
"""

import errno
import hashlib
import mmap
import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from texad.errors import DiskFullError

if TYPE_CHECKING:
    import torch

try:
    import fcntl
except ModuleNotFoundError:  # Windows: there, nothing keeps two processes out of one folder
    fcntl = None  # type: ignore[assignment]  # mypy has no word for a module that may be missing

FULL = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
)  # the disk, the user's part of it, or the largest file allowed
TEMPORARY = re.compile(r"\.[0-9a-f]{8}\..+")  # as `replacing` names them
FILLED = ".importing-"  # begins the name of a folder that `filling` fills
DAY_S = 86_400.0
LOCK = ".lock"
HELD = (
    "TEXAD_HELD"  # in the environment of a batch's kernel: the folder that its batch holds for it
)
WAIT_SECONDS = 0.5

_descriptors: dict[Path, int] = {}  # of the locks that this process holds


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Give a temporary path to write to; it becomes `file` when the block ends, and vanishes if the block fails.

    A reader sees the old file or the new one, never a half. Who may read it is as if `open` had written it: the old file's permissions stay, and a
    new one has those that the system gives new files, whatever the writer does.

    Parameters
    ----------
    file : Path
        Its folder is made if need be.

    Yields
    ------
    Path
        In the same folder, with the same suffix, hidden. The file is there, and empty.

    Raises
    ------
    DiskFullError
        If there is no room for the file. The old one is as it was.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(
            f".{uuid.uuid4().hex[:8]}.{file.name}"
        )  # of no other process, on this machine or another
        try:
            temporary.touch()
            permissions = _permissions(file if file.exists() else temporary)
            yield temporary
            if _permissions(temporary) != permissions:
                temporary.chmod(permissions)
            os.replace(temporary, file)
        finally:
            temporary.unlink(missing_ok=True)
    except Exception as error:
        if not _is_full(error):
            raise
        raise DiskFullError(
            f"no room to write {file}: the disk is full, or a quota or limit on the size of files is reached. "
            "What was there before is as it was: make room, and run the same again"
        ) from error


def write_tensors(file: Path, tensors: dict[str, "torch.Tensor"], metadata: dict[str, str]) -> None:
    """Write a file of safetensors, as `replacing` does.

    Not by their own `save_file`: that writes to a hidden file of its own first, which a killed process leaves behind for good.

    Parameters
    ----------
    file : Path
        Its folder is made if need be.
    tensors : dict of str to Tensor
        By name, contiguous and on the CPU.
    metadata : dict of str to str

    Raises
    ------
    DiskFullError
        If there is no room for the file. The old one is as it was.
    """
    from safetensors.torch import (
        save,
    )  # only now: it imports torch, and who moves files about needs none

    with replacing(file) as temporary:
        temporary.write_bytes(save(tensors, metadata))


@contextmanager
def filling(target: Path) -> Iterator[Path]:
    """Give a hidden folder to write to; it becomes `target` when the block ends, and vanishes if the block fails.

    What a killed process left beside it is removed when it is a day old; a younger folder may be at work.

    Parameters
    ----------
    target : Path
        A folder that does not exist; the one that it lies in is made if need be.

    Yields
    ------
    Path

    Raises
    ------
    FileExistsError
        If somebody else has made `target` meanwhile.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(f"{FILLED}*"):
        if left.lstat().st_mtime < time.time() - DAY_S:
            shutil.rmtree(left, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=FILLED, dir=target.parent))
    try:
        folder = temporary / target.name  # not the temporary one itself: that is for its owner only
        folder.mkdir()
        yield folder
        if os.path.lexists(target):
            raise FileExistsError(
                f"{target} was made by somebody else meanwhile, and nothing is overwritten: name another category"
            )
        folder.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _permissions(file: Path) -> int:
    return file.stat().st_mode & 0o777


def _is_full(error: BaseException) -> bool:
    """Was there no room? NumPy says it in words of its own, without the error's number."""
    return isinstance(error, OSError) and (
        error.errno in FULL or bool(re.search(r"\d+ requested and \d+ written", str(error)))
    )


def sha256(file: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def digests(folder: Path, patterns: Iterable[str]) -> dict[str, str]:
    """Hashes to tell by whether files are still the same.

    Parameters
    ----------
    folder : Path
    patterns : iterable of str
        Names of files, relative to `folder`, or patterns such as `pictures/*.jpg` that stand for many.

    Returns
    -------
    dict of str to str
        For the name of a file, its SHA-256; for a pattern, one SHA-256 over the names and hashes of all files that match. What matches no
        file is left out.
    """
    found = {}
    for pattern in patterns:
        if "*" not in pattern:
            if (folder / pattern).is_file():
                found[pattern] = sha256(folder / pattern)
        elif files := sorted(file for file in folder.glob(pattern) if file.is_file()):
            found[pattern] = hashlib.sha256(
                "".join(f"{sha256(file)}  {file.name}\n" for file in files).encode(
                    "utf-8", "surrogateescape"
                )
            ).hexdigest()
    return found


# -- one process at a time -------------------------------------------------------------------------


def take(folder: Path) -> bool:
    """Become the one process that writes into a folder, unless another one is.

    The system ends a lock with the process that holds it, and with the kernels that share it (see `descriptor`), however they end. What
    killed processes left half-written in the folder is removed now, since nobody else is writing there.

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
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if fcntl is not None:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES):
            os.close(lock)
            return False  # else the file system knows no locks: better without than not at all
    if not os.fstat(lock).st_nlink:  # the folder was deleted meanwhile
        os.close(lock)
        return False
    _descriptors[folder] = lock
    remove_leftovers(folder, "**/.*")
    return True


def leave(folder: Path) -> None:
    """End what `take` began; nothing if this process does not hold the folder."""
    if (lock := _descriptors.pop(folder, None)) is None:
        return
    if fcntl is not None:
        try:
            fcntl.flock(lock, fcntl.LOCK_UN)  # for the kernels that share it, too
        except OSError:
            pass
    os.close(lock)


def is_held(folder: Path) -> bool:
    """Does this process hold the folder, or the batch that started it?"""
    return folder in _descriptors or os.environ.get(HELD) == str(folder)


def descriptor(folder: Path) -> int | None:
    """The open file behind the lock, to be handed to a kernel: the lock then lasts until both have ended. So a kernel that outlives its batch by
    a moment is still the only one to write.
    """
    return _descriptors.get(folder)


@contextmanager
def alone(folder: Path, waits: Callable[[int], None]) -> Iterator[None]:
    """Hold a folder while the block runs, after waiting until nobody else does.

    Parameters
    ----------
    folder : Path
    waits : callable
        Called before each wait of half a second, with the number of waits so far. An exception that it raises ends the waiting.
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


def remove_leftovers(folder: Path, pattern: str = ".*", older_than: float = 0) -> None:
    """Remove the temporary files of `replacing` whose process was killed.

    Parameters
    ----------
    folder : Path
    pattern : str, default ".*"
        Where to look; "**/.*" also in the folders below.
    older_than : float, default 0
        In seconds: where others may be writing, what is new stays.
    """
    for file in folder.glob(pattern):
        try:
            if TEMPORARY.fullmatch(file.name) and (
                not older_than or file.stat().st_mtime < time.time() - older_than
            ):
                file.unlink()
        except OSError:  # another one was faster, or it is no file
            pass


def release(array: np.ndarray) -> None:
    """Give back the memory of an array that is mapped from a file; what is read of it again comes from the file again.

    The system counts all that was read of such an array as memory of the process, and so would a limit. Does nothing for other arrays.
    """
    base: object = array
    while base is not None and not isinstance(base, mmap.mmap):
        base = getattr(base, "base", None)
    if (
        base is not None and not array.flags.writeable and hasattr(base, "madvise")
    ):  # Windows has no such call
        base.madvise(mmap.MADV_DONTNEED)
