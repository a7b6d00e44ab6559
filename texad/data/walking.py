"""One way through a folder of images and the folders below it."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from texad.errors import DataError

SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"),
    *(".jp2", ".j2k", ".pgm", ".ppm", ".pnm", ".pbm", ".jpe", ".jfif", ".dib"),
)
# What lies beside images, and is none.
COMPANIONS = (
    *(".txt", ".md", ".pdf", ".html", ".htm", ".css", ".js", ".log", ".ini", ".db", ".rst"),
    *(".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".toml", ".xlsx", ".xls"),
    *(".py", ".ipynb", ".sh", ".bat", ".zip", ".gz", ".part", ".tmp", ".pkl", ".pyb"),
    *(".safetensors", ".onnx", ".pt", ".pth", ".ckpt", ".names", ".data", ".cache", ".license"),
)


def is_image(name: str) -> bool:
    """Tell by the ending of a file's name whether it is an image that can be read."""
    return name.lower().endswith(SUFFIXES)


def passed_over(names: Iterable[str]) -> Counter[str]:
    """Count the files that may be pictures, but of a format that is not read, by their endings.

    Examples
    --------
    >>> passed_over(["1.png", "2.HEIC", "3.heic", "notes.txt"])
    Counter({'.heic': 2})
    """
    others = (name for name in names if not name.lower().endswith(SUFFIXES + COMPANIONS))
    return Counter(os.path.splitext(name)[1].lower() or "no ending" for name in others)


def natural(text: str) -> tuple:
    """Sort key for natural order, which puts 2 before 10.

    Examples
    --------
    >>> sorted(["10.png", "2.png"], key=natural)
    ['2.png', '10.png']
    """
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d+)", text))], text


def in_folders(path: str) -> list[tuple]:
    """Sort key for natural order in each folder of a path.

    Examples
    --------
    >>> sorted(["a/10.png", "a-b/1.png", "a/9/1.png"], key=in_folders)
    ['a/9/1.png', 'a/10.png', 'a-b/1.png']
    """
    return [natural(part) for part in Path(path).parts]


def walk(folder: Path) -> Iterator[tuple[Path, list[str], list[Path]]]:
    """Walk through a folder and the folders below it, in natural order.

    Hidden files and folders are passed over, and links to folders are not followed.

    Yields
    ------
    folder : Path
    below : list of str
        Names of its sub-folders.
    files : list of Path

    Raises
    ------
    DataError
        If a folder may not be listed.
    """

    def visible(names: list[str]) -> list[str]:
        return sorted((name for name in names if not name.startswith(".")), key=natural)

    for root, below, names in os.walk(folder, onerror=_refuse):
        below[:] = visible(below)
        yield Path(root), below, [Path(root, name) for name in visible(names)]


def _refuse(error: OSError) -> None:
    raise DataError(
        f"{error.filename} may not be read ({error.strerror}): ask its owner, or copy the data"
    )
