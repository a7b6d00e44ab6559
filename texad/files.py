"""Files that are whole or not there: atomic writes, and hashes to know a file by."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
    temporary = file.with_name(f".{os.getpid()}.{file.name}")
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
