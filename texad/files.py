"""Files that are whole or not there: atomic writes, hashes to know a file by, and arrays on disk that take no memory."""

import hashlib
import mmap
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Give a temporary path to write to; it becomes `file` when the block ends, and vanishes if the block fails.

    A reader sees the old file or the new one, never a half.

    Parameters
    ----------
    file : Path
        Its folder is made if need be.

    Yields
    ------
    Path
        In the same folder, with the same suffix, hidden.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{uuid.uuid4().hex[:8]}.{file.name}")  # of no other process, on this machine or another
    try:
        yield temporary
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def sha256(file: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def release(array: np.ndarray) -> None:
    """Give back the memory of an array that is mapped from a file; what is read of it again comes from the file again.

    The system counts all that was read of such an array as memory of the process, and so would a limit. Does nothing for other arrays.
    """
    base = array
    while base is not None and not isinstance(base, mmap.mmap):
        base = getattr(base, "base", None)
    if base is not None and not array.flags.writeable and hasattr(base, "madvise"):  # Windows has no such call
        base.madvise(mmap.MADV_DONTNEED)
