"""Files and folders that are whole or not there, and hashes to know a file by."""

import errno
import hashlib
import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from texad.errors import DiskFullError

# The disk, the user's share of it, or the largest file allowed is full.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
TEMPORARY = re.compile(r"\.[0-9a-f]{8}\..+")  # as `replacing` names them
FILLED = ".filling-"  # begins the name of a folder that `filling` fills


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Replace a file atomically: yield a temporary path that becomes `file` when the block ends.

    If the block fails, the temporary file is removed. A reader sees the old file or the new one,
    never a half. An old file's permissions stay, and a new file has those that the system gives
    new files, whatever the writer does.

    Parameters
    ----------
    file : Path
        Its folder is made if need be.

    Yields
    ------
    Path
        Hidden, in the same folder, with the same suffix. The file is there, and empty.

    Raises
    ------
    DiskFullError
        If there is no room for the file. The old one is as it was.

    Examples
    --------
    >>> folder = Path(tempfile.mkdtemp())
    >>> with replacing(folder / "scores.csv") as temporary:
    ...     _ = temporary.write_text("score")
    ...     (folder / "scores.csv").exists()
    False
    >>> [file.name for file in folder.iterdir()]
    ['scores.csv']
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # A name of no other process, on this machine or another.
        temporary = file.with_name(f".{uuid.uuid4().hex[:8]}.{file.name}")
        try:
            temporary.touch()
            mode = (file if file.exists() else temporary).stat().st_mode
            yield temporary
            temporary.chmod(mode & 0o777)
            os.replace(temporary, file)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        # NumPy says so in words, without the error's number.
        if error.errno not in FULL and not re.search(r"\d+ requested and \d+ written", str(error)):
            raise
        raise DiskFullError(
            f"no room to write {file}: the disk is full, or a quota or limit on the size of files "
            "is reached. What was there before is as it was: make room, and run the same again"
        ) from error


def write_text(file: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all, as `replacing` does."""
    with replacing(file) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_tensors(file: Path, tensors: dict[str, Any], metadata: dict[str, str]) -> None:
    """Write a safetensors file whole or not at all, as `replacing` does.

    safetensors' own `save_file` first writes to a hidden file of its own, which a killed process
    would leave behind for good.

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
    from safetensors.torch import save  # imports torch, which moving files about does not need

    with replacing(file) as temporary:
        temporary.write_bytes(save(tensors, metadata))


@contextmanager
def filling(target: Path) -> Iterator[Path]:
    """Fill a folder atomically: yield a hidden folder that becomes `target` when the block ends.

    If the block fails, the hidden folder is removed. What a killed process left beside it is
    removed when it is a day old; a younger folder may be in use.

    Parameters
    ----------
    target : Path
        A folder that does not exist; the folder that holds it is made if need be.

    Yields
    ------
    Path

    Raises
    ------
    FileExistsError
        If another process has made `target` meanwhile.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(f"{FILLED}*"):
        if left.lstat().st_mtime < time.time() - 86_400:
            shutil.rmtree(left, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=FILLED, dir=target.parent))
    try:
        folder = temporary / target.name  # not the temporary one: only its owner may read that
        folder.mkdir()
        yield folder
        if os.path.lexists(target):
            raise FileExistsError(
                f"{target} was made by another process meanwhile, and nothing is overwritten"
            )
        folder.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sha256(file: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with file.open("rb") as stream:
        return sha256_of(stream)


def sha256_of(stream: BinaryIO) -> str:
    """SHA-256 of what is left to read of a stream, in hexadecimal."""
    digest = hashlib.sha256()
    while block := stream.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def digests(folder: Path, patterns: Iterable[str]) -> dict[str, str]:
    """Hashes that tell whether files are still the same.

    Parameters
    ----------
    folder : Path
    patterns : iterable of str
        Names of files, relative to `folder`, or patterns such as `pictures/*.jpg`.

    Returns
    -------
    dict of str to str
        For the name of a file, its SHA-256; for a pattern, one SHA-256 over the names and hashes of
        all files that match. What matches no file is left out.
    """
    found = {}
    for pattern in patterns:
        if "*" not in pattern:
            if (folder / pattern).is_file():
                found[pattern] = sha256(folder / pattern)
        elif files := sorted(file for file in folder.glob(pattern) if file.is_file()):
            lines = "".join(f"{sha256(file)}  {file.name}\n" for file in files)
            found[pattern] = hashlib.sha256(os.fsencode(lines)).hexdigest()
    return found


def remove_leftovers(folder: Path, pattern: str = ".*", older_than: float = 0) -> None:
    """Remove the temporary files of `replacing` whose process was killed.

    Parameters
    ----------
    folder : Path
    pattern : str, default ".*"
        Where to look; ``"**/.*"`` also in the folders below.
    older_than : float, default 0
        In seconds: where other processes may be writing, what is new stays.
    """
    for file in folder.glob(pattern):
        if TEMPORARY.fullmatch(file.name):
            with suppress(OSError):  # another process was faster, or it is a folder
                if not older_than or file.stat().st_mtime < time.time() - older_than:
                    file.unlink()
