"""Groups of images that belong together beyond their kind, and where their names come from.

Several exposures of one piece, pieces of one batch, or cells of one solar module resemble each
other more than new images will. If such a group is on both sides of a split, a detector is judged
by images that it half knows, and looks better than it is: `texad.data.splitting` keeps groups
whole.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from texad.data.convert import table
from texad.data.convert.source import existing, missing
from texad.errors import DataError, printable

FOLDER = "folder"


def source(root: Path, how: str = "") -> str:
    """Say where groups come from: a table with its whole path, else `how`; empty for nowhere.

    Parameters
    ----------
    root : Path
        The folder of the category, which holds `train`; or a folder of good images.
    how : str, default ""
        As in `groups`.
    """
    return str(table_file(root, how) or how)


def table_file(root: Path, how: str = "") -> Path | None:
    """Find the table that groups come from, as `source`; None if there is none."""
    given = Path(how or table.GROUPS).expanduser()
    places = [root / given, given] if how else [root / given]
    tables = (file.absolute() for file in places if file.is_file())
    return next(tables, None) if given.suffix.lower() == ".csv" else None


def groups(
    images: Sequence[Path], root: Path, how: str = "", every: bool = True
) -> list[str] | None:
    """Find the group of each image.

    Parameters
    ----------
    images : sequence of Path, length N
        Below `root`.
    root : Path
        The folder of the category, which holds `train`; or a folder of good images.
    how : str, default ""
        One of three things, told apart in this order. What ends in ``.csv`` is a table with the
        columns `path` and `group`; paths start in the table's folder or in `root`, and it may name
        other images of `root`, too. The word ``folder`` means the folder that an image is in.
        Anything else is a regular expression, searched in the path from `root`, with slashes: the
        group is what its part called ``group`` matches, else its first part in parentheses, else
        the whole of it. Empty: `groups.csv` in `root`, if there is one.
    every : bool, default True
        Whether each image must have a group, and there must be two groups at least; else images
        without one have the group "".

    Returns
    -------
    list of str, length N, or None
        None if nothing is said of groups.

    Raises
    ------
    DataError
        A ValueError, of one line: the table cannot be used, the expression is none, an image has no
        group, or all have the same.

    Examples
    --------
    >>> root = Path("tiles")
    >>> images = [root / name for name in ("7_dark.png", "7_light.png", "8_dark.png")]
    >>> groups(images, root, r"(\\d+)_")
    ['7', '7', '8']
    """
    if not (how := source(root, how)):
        return None
    paths = [path.relative_to(root) for path in images]
    if how.lower().endswith(".csv"):
        named = _table(root, how)
        found = [named.get(_absolute(root / path), "") for path in paths]
    elif how == FOLDER:
        found = [path.parent.as_posix() for path in paths]
    else:
        expression, part = _expression(how)
        matches = [expression.search(path.as_posix()) for path in paths]
        found = [(match[part] or "") if match else "" for match in matches]
    without = [path for path, group in zip(paths, found, strict=True) if not group]
    if every and without:
        names = " and ".join(printable(path.as_posix()) for path in without[:2])
        raise DataError(
            f"groups {how}: {len(without)} of {len(images)} images have no group, such as {names}: "
            "each image needs one, if only its own"
        )
    if every and len({*found}) < 2:
        raise DataError(
            f"groups {how}: all {len(images)} images are in one group, {found[0]!r}: there must be "
            "two at least, one to learn from and one to calibrate with"
        )
    return found


def _expression(how: str) -> tuple[re.Pattern[str], int | str]:
    """Compile a regular expression, and name the part of it that is the group."""
    try:
        expression = re.compile(how)
    except re.error as error:
        raise DataError(
            f"groups {how!r} is no .csv file, not the word {FOLDER}, and no regular expression "
            f"({error}): give one of them"
        ) from None
    return expression, "group" if "group" in expression.groupindex else min(expression.groups, 1)


def _table(root: Path, how: str) -> dict[str, str]:
    """Group of each image that a table names, by its absolute path."""
    if not (file := table_file(root, how)):
        raise DataError(f"groups: there is no file {how}, here or in {root}: give its whole path")
    header, rows = table.rows(file)
    for column in {"path", "group"} - {*header}:
        raise DataError(
            f"{file} has no column {column!r}: its first line must be path,group and is "
            f"{printable(','.join(header)) or 'empty'}"
        )
    path_at, group_at = header.index("path"), header.index("group")
    named: dict[str, str] = {}
    for where, row in rows:
        hint = "correct it, or remove the line"
        roots = (file.parent, root)
        if not (path := existing(row[path_at], roots)):
            raise missing(row[path_at], where, roots, hint)
        image = _absolute(path)
        group = row[group_at].strip()
        if named.setdefault(image, group) != group:
            raise DataError(
                f"{where}: {row[path_at]} is in group {group!r}, and was in {named[image]!r} "
                "before: an image has one group"
            )
    return named


def _absolute(path: Path) -> str:
    return os.path.join(os.path.realpath(path.parent), path.name)  # an image may itself be a link
