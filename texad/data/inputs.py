"""Which images a command is about: a folder of good ones to learn from, or a stream of paths.

A folder to learn from is listed as a whole, looked through, and put in order. Paths to judge are a
stream, which may be endless: of these, no more than the names in a folder are kept.
"""

import glob
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from texad.data.names import BAD, GOOD, MASKS, masks_beside, plain
from texad.data.screening import check_lost, screen
from texad.data.walking import SUFFIXES, in_folders, is_image, natural, passed_over, walk
from texad.errors import DataError
from texad.io.atomic import sha256
from texad.io.images import check_image

DIGITS = 16  # of a hash in hexadecimal: enough to tell some thousand million images apart


# -- a folder of good images -----------------------------------------------------------------------


@dataclass(frozen=True)
class GoodImages:
    """The images of a folder that can be used.

    Attributes
    ----------
    root : Path
        The folder that they were taken from.
    images : dict of str to Path
        In natural order; each image once, by the beginning of its file's SHA-256.
    sizes : Counter of (int, int)
        How many images have each height and width.
    unreadable : dict of Path to str
        What was left out, and why.
    copies : list of Path
        Left out, too: the same bytes as an image before.
    passed_over : Counter of str
        How many pictures have a format that is not read, by their endings.
    layout : str
        "train/good" or "test/good" if the folder is laid out as MVTec AD; else empty.
    """

    root: Path
    images: dict[str, Path] = field(default_factory=dict)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    unreadable: dict[Path, str] = field(default_factory=dict)
    copies: list[Path] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)
    layout: str = ""

    @property
    def paths(self) -> list[Path]:
        return list(self.images.values())


def good_images(
    folder: str | Path, split: str = "train", unreadable_limit: float = 0.05, progress: bool = True
) -> GoodImages:
    """Find the good images of a folder and of those below it.

    Hidden files and folders are passed over, and links to folders are not followed. Copies are left
    out: a copy of an image to learn from, among those to calibrate with, would make the detector
    seem better than it is.

    Parameters
    ----------
    folder : str or Path
        If it is laid out as MVTec AD lays out a category, only one of its sub-folders is taken.
    split : {"train", "test"}, default "train"
        Which one: `train/good` or `test/good`.
    unreadable_limit : float, default 0.05
        The largest fraction of the images that may be unreadable, from 0 to 1. They are left out.
    progress : bool, default True
        Show a progress bar.

    Raises
    ------
    DataError
        A ValueError: there is no such folder, it holds no image or seems to hold bad ones, or too
        many cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> from texad.data import synthetic
    >>> folder = synthetic.write(tempfile.mkdtemp(), "grid", n_train=3, n_good=2, size=64)
    >>> found = good_images(folder, progress=False)
    >>> found.layout, [path.name for path in found.paths]
    ('train/good', ['000.png', '001.png', '002.png'])
    """
    root = Path(folder).expanduser()
    if not str(folder) or not root.is_dir():
        reason = "is a file, and no folder" if root.is_file() else "does not exist"
        raise DataError(f"folder {str(folder)!r} {reason}: name a folder of good images")
    layout = f"{split}/good" if (root / "train" / "good").is_dir() else ""
    root = root / layout
    if not root.is_dir():
        raise DataError(
            f"{folder} is laid out as MVTec AD, but has no {layout}: name the folder of new good "
            "images itself"
        )
    images, others = _listed(root)
    if not images:
        seen = f"; other files: {len(others)}, such as {others[0].name}" if others else ""
        raise DataError(
            f"{root} holds no image, and neither do its sub-folders ({', '.join(SUFFIXES)}){seen}: "
            "name a folder of good images"
        )
    readable, unreadable = screen(
        images, lambda path: (sha256(path)[:DIGITS], check_image(path)), progress
    )
    check_lost(root, unreadable, len(images), unreadable_limit)
    found = GoodImages(
        root,
        unreadable=dict(unreadable),
        passed_over=passed_over(file.name for file in others),
        layout=layout,
    )
    for path, (digest, size) in readable:
        if found.images.setdefault(digest, path) is path:
            found.sizes[size] += 1
        else:
            found.copies.append(path)
    return found


def _listed(root: Path) -> tuple[list[Path], list[Path]]:
    """Images, and other files; DataError if there is a sign that not all of them are good."""
    images: list[Path] = []
    others: list[Path] = []
    depth = len(root.parts)
    for folder, below, files in walk(root):
        if sets := [name for name in below if (folder / name / "train" / "good").is_dir()]:
            raise DataError(
                f"{folder} is a data set of {len(sets)} categories: name one of them, such as "
                f"{folder / sets[0]}"
            )
        good = [name for name in below if plain(name) in GOOD]
        bad = [name for name in below if plain(name) in BAD]
        if bad or (good and len(below) > 1):
            instead = f"name {folder / good[0]}" if good else f"move {folder / bad[0]} elsewhere"
            raise DataError(
                f"{folder} has the sub-folders {', '.join(below[:5])}"
                f"{', …' if len(below) > 5 else ''}, not all of which seem to hold good images, "
                f"and only good ones are wanted: {instead}, or sort them with texad import"
            )
        for file in files:
            (images if is_image(file.name) else others).append(file)
    in_folders = [
        file for file in images if any(plain(part) in MASKS for part in file.parts[depth:-1])
    ]
    if masks := [*masks_beside(images), *in_folders]:
        raise DataError(
            f"{root} has masks among its images ({len(masks)}, such as {masks[0]}), and only good "
            "images are wanted: sort them with texad import, or move the masks elsewhere"
        )
    return images, others


# -- a stream of paths -----------------------------------------------------------------------------


def stream(arguments: Iterable[str], complain: Callable[[str], None]) -> Iterator[str]:
    """Find paths of images, one at a time.

    Parameters
    ----------
    arguments : iterable of str
        Files, which are given as they are; folders, whose images are found with those of all
        folders below; patterns such as `line/**/*.png`, for when the shell expands none; "-" for
        the lines of the standard input, as they come. Images of a folder or pattern are in natural
        order, see `walking.in_folders`.
    complain : callable
        Given one line if a pattern matches nothing, a folder or the standard input holds no image,
        or pictures are passed over since their format is not read; the others go on.

    Yields
    ------
    str
    """
    endings = ", ".join(SUFFIXES)
    others: Counter[str] = Counter()
    for argument in arguments:
        path = os.path.expanduser(argument)
        found, nothing = iter([path]), ""
        if argument == "-":
            found, nothing = _lines(), "the standard input names no image"
        elif os.path.isdir(path):
            below = f"neither do its sub-folders ({endings})"
            found, nothing = _below(path, others), f"folder {argument} holds no image, and {below}"
        elif not os.path.lexists(path) and glob.has_magic(path):
            hint = f"({endings}); ** stands for folders at any depth"
            found, nothing = _matching(path, others), f"pattern {argument} matches no image {hint}"
        if (first := next(found, None)) is None:
            complain(nothing)
        else:
            yield first
            yield from found
        if others:
            kinds = ", ".join(f"{n} of {ending}" for ending, n in others.items())
            complain(f"{argument}: not judged, since the format is not read: {kinds}")
            others.clear()


def _lines() -> Iterator[str]:
    # Not sys.stdin itself: a thread that waits in it would keep Python from ending.
    with open(sys.stdin.fileno(), "rb", closefd=False) as lines:
        for line in lines:
            if name := line.rstrip(b"\r\n"):
                yield os.fsdecode(name)


def _below(folder: str, others: Counter[str]) -> Iterator[str]:
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: natural(entry.name))
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _below(entry.path, others)
            elif is_image(entry.name):
                yield entry.path
            elif entry.is_file():
                others.update(passed_over([entry.name]))
    except OSError:
        yield folder  # which is then an image that cannot be read, and the reason is told


def _matching(pattern: str, others: Counter[str]) -> Iterator[str]:
    for path in sorted(glob.iglob(pattern, recursive=True), key=in_folders):
        if not os.path.isdir(path):
            if is_image(path):
                yield path
            else:
                others.update(passed_over([os.path.basename(path)]))
        elif "**" not in pattern:  # which finds what is below by itself
            yield from _below(path, others)
