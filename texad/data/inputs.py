"""Which images a command is about: a folder of good ones to learn from, or whatever paths are given, one after the other.

A folder to learn from is listed as a whole, looked through, and put in order. Paths to judge are an endless stream: nothing here keeps them.
"""

import glob
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from texad.data import datasets
from texad.data.convert.labels import BAD, GOOD, plain
from texad.data.datasets import SUFFIXES
from texad.errors import DataError, ImageError
from texad.io.atomic import sha256
from texad.io.images import check_image

DIGITS = 16  # of a hash in hexadecimal: enough to tell some thousand million images apart


@dataclass(frozen=True)
class GoodImages:
    """The images of a folder that can be used.

    Attributes
    ----------
    root : Path
        The folder that they were taken from.
    paths : list of Path
        In natural order; each image once.
    hashes : list of str
        The beginning of the SHA-256 of each file.
    sizes : Counter of (int, int)
        How many images have each height and width.
    unreadable : dict of Path to str
        What was left out, and why.
    copies : list of Path
        Left out, too: the same bytes as an image before.
    layout : str
        "train/good" or "test/good" if the folder is laid out as MVTec AD; else empty.
    """

    root: Path
    paths: list[Path]
    hashes: list[str]
    sizes: Counter[tuple[int, int]]
    unreadable: dict[Path, str] = field(default_factory=dict)
    copies: list[Path] = field(default_factory=list)
    layout: str = ""

    def without(self, known: Iterable[str]) -> "GoodImages":
        """Only the images whose hashes are not among these."""
        known = set(known)
        kept = [
            (path, digest)
            for path, digest in zip(self.paths, self.hashes, strict=True)
            if digest not in known
        ]
        return GoodImages(
            self.root,
            [path for path, _ in kept],
            [digest for _, digest in kept],
            self.sizes,
            self.unreadable,
            self.copies,
            self.layout,
        )


def good_images(
    folder: str | Path, split: str = "train", unreadable_limit: float = 0.05, progress: bool = True
) -> GoodImages:
    """Find the good images of a folder and of those below it.

    Hidden files and folders are passed over, and links to folders are not followed. Copies are left out: a copy of an image to learn from, among
    those to calibrate with, would make the detector seem better than it is.

    Parameters
    ----------
    folder : str or Path
        If it is laid out as MVTec AD lays out a category, only one of its sub-folders is taken.
    split : {"train", "test"}, default "train"
        Which one: `train/good` or `test/good`.
    unreadable_limit : float, default 0.05
        The largest part of the images that may be unreadable, from 0 to 1. They are left out.
    progress : bool, default True
        Show a progress bar.

    Raises
    ------
    DataError
        A ValueError: there is no such folder, it holds no image or seems to hold bad ones, or too many cannot be read.
    """
    if not 0 <= unreadable_limit <= 1:
        raise DataError(
            f"unreadable_limit must be between 0 and 1 (0.05 is one image in twenty), not {unreadable_limit}"
        )
    root = Path(folder).expanduser()
    if not str(folder) or not root.is_dir():
        reason = "is a file, and no folder" if root.is_file() else "does not exist"
        raise DataError(f"folder {str(folder)!r} {reason}: name a folder of good images")
    layout = f"{split}/good" if (root / "train" / "good").is_dir() else ""
    if layout and not (root / layout).is_dir():
        raise DataError(
            f"{root} is laid out as MVTec AD, but has no {layout}: name the folder of new good images itself"
        )
    root = root / layout
    paths, others = _listed(root)
    if not paths:
        seen = (
            f"; there are {len(others)} other files in it, such as {others[0].name}"
            if others
            else ""
        )
        raise DataError(
            f"{root} holds no image, and neither do its sub-folders ({', '.join(SUFFIXES)}){seen}: name a folder of good images"
        )
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        looked = list(
            tqdm(pool.map(_look, paths), "reading", len(paths), unit="image", disable=not progress)
        )
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C waits for no other image
    found, known = GoodImages(root, [], [], Counter(), layout=layout), set()
    for path, (reason, digest, size) in zip(paths, looked, strict=True):
        if reason:
            found.unreadable[path] = reason
        elif digest in known:
            found.copies.append(path)
        else:
            known.add(digest)
            found.paths.append(path)
            found.hashes.append(digest)
            found.sizes[size] += 1
    n_lost = len(found.unreadable)
    if n_lost == len(paths) or n_lost / len(paths) > unreadable_limit:
        names = "; ".join(
            f"{path.relative_to(root)} ({reason})"
            for path, reason in list(found.unreadable.items())[:3]
        )
        allowed = (
            ""
            if n_lost == len(paths)
            else f", and --unreadable-limit allows {unreadable_limit:.4g} of them"
        )
        raise DataError(
            f"{root}: {n_lost} of {len(paths)} images cannot be read{allowed}: {names}{'; …' if n_lost > 3 else ''}: replace or remove them"
        )
    return found


def _listed(root: Path) -> tuple[list[Path], list[Path]]:
    """Images in natural order, and other files; DataError if there is a sign that not all of them are good."""
    images: list[Path] = []
    others: list[Path] = []
    for folder, below, names in os.walk(root, onerror=_refuse):
        below[:] = sorted(
            (name for name in below if not name.startswith(".")), key=datasets.natural
        )
        _check_names(Path(folder), below)
        for name in sorted(
            (name for name in names if not name.startswith(".")), key=datasets.natural
        ):
            (images if is_image(name) else others).append(Path(folder, name))
    return images, others


def _check_names(folder: Path, below: Sequence[str]) -> None:
    good = [name for name in below if plain(name) in GOOD]
    bad = [name for name in below if plain(name) in BAD]
    if categories := [name for name in below if (folder / name / "train" / "good").is_dir()]:
        raise DataError(
            f"{folder} is a data set of {len(categories)} categories: name one of them, such as {folder / categories[0]}"
        )
    if bad or (good and len(below) > 1):
        instead = f"name {folder / good[0]}" if good else f"move {folder / bad[0]} elsewhere"
        raise DataError(
            f"{folder} has the sub-folders {', '.join(below[:5])}{', …' if len(below) > 5 else ''}, not all of which seem to hold good images, and "
            f"only good ones are wanted: {instead}, or sort them with texad import"
        )


def _refuse(error: OSError) -> None:
    raise DataError(
        f"{error.filename} may not be read ({error.strerror}): ask its owner, or copy the images"
    )


def _look(path: Path) -> tuple[str, str, tuple[int, int]]:
    """What is wrong with an image (empty if nothing is), its hash, and its size."""
    try:
        return "", *(sha256(path)[:DIGITS], check_image(path))
    except ImageError as error:
        return error.reason, "", (0, 0)
    except OSError as error:
        return error.strerror or type(error).__name__, "", (0, 0)


def is_image(name: str) -> bool:
    """Is it called as an image is?"""
    return name.lower().endswith(SUFFIXES)


# -- a stream of paths -----------------------------------------------------------------------------


def stream(arguments: Iterable[str], complain: Callable[[str], None]) -> Iterator[str]:
    """Paths of images, one at a time, as they are found; none is kept.

    Parameters
    ----------
    arguments : iterable of str
        Files, which are given as they are; folders, whose images are found with those of all folders below, in the order of the file system;
        patterns such as `line/**/*.png`, for when the shell expands none; "-" for the lines of the standard input, as they come.
    complain : callable
        Given one line if a pattern matches nothing, or a folder holds no image; the others go on.
    """
    for argument in arguments:
        path = os.path.expanduser(argument)
        if argument == "-":
            yield from _lines()
        elif os.path.isdir(path):
            yield from _some(
                _below(path),
                complain,
                f"folder {argument} holds no image, and neither do its sub-folders ({', '.join(SUFFIXES)})",
            )
        elif not os.path.lexists(path) and glob.has_magic(path):
            yield from _some(
                _matching(path),
                complain,
                f"pattern {argument} matches no image ({', '.join(SUFFIXES)}); ** stands for folders at any depth",
            )
        else:
            yield path


def _lines() -> Iterator[str]:
    # Not sys.stdin itself: a thread that waits in it would keep Python from ending.
    with open(sys.stdin.fileno(), "rb", closefd=False) as lines:
        for line in lines:
            if name := line.rstrip(b"\r\n"):
                yield os.fsdecode(name)


def _below(folder: str) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    yield from _below(entry.path)
                elif is_image(entry.name):
                    yield entry.path
    except OSError:
        yield folder  # which is then an image that cannot be read, and the reason is told


def _matching(pattern: str) -> Iterator[str]:
    for path in glob.iglob(pattern, recursive=True):
        if not os.path.isdir(path):
            if is_image(path):
                yield path
        elif "**" not in pattern:  # which finds what is below by itself
            yield from _below(path)


def _some(paths: Iterator[str], complain: Callable[[str], None], complaint: str) -> Iterator[str]:
    path = next(paths, None)
    if path is None:
        complain(complaint)
    else:
        yield path
        yield from paths
