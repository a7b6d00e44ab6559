"""Screening: which images can be read, and how many may not.

One damaged file among many changes little, and is no reason to lose a day. Many are a sign that
something else is wrong, and what is left may no longer stand for what was photographed.
"""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from texad.data.datasets import Category, Sample, Unreadable
from texad.errors import DataError, ImageError, check_range, printable
from texad.io.images import check_image, read_mask

Item = TypeVar("Item")
Seen = TypeVar("Seen")


def screen(
    items: Sequence[Item], look: Callable[[Item], Seen], progress: bool = True
) -> tuple[list[tuple[Item, Seen]], list[tuple[Item, str]]]:
    """Look at all images, several at a time.

    Parameters
    ----------
    items : sequence
        Images, in whatever form `look` takes them.
    look : callable
        Raises ImageError or OSError if an image cannot be used.
    progress : bool, default True
        Show a progress bar.

    Returns
    -------
    readable : list of (item, what `look` returned)
    unreadable : list of (item, reason)
        Both in the order of `items`.
    """

    def attempt(item: Item) -> tuple[Any, str | None]:
        try:
            return look(item), None
        except ImageError as error:
            return None, error.reason
        except OSError as error:
            return None, error.strerror or type(error).__name__

    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        attempts = pool.map(attempt, items)
        bar = tqdm(attempts, "reading", len(items), unit="image", disable=not progress)
        looked = list(zip(items, bar, strict=True))
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C waits for no other image
    readable = [(item, seen) for item, (seen, reason) in looked if reason is None]
    return readable, [(item, reason) for item, (_, reason) in looked if reason is not None]


def check_lost(
    folder: Path, unreadable: Sequence[tuple[Path, str]], n: int, unreadable_limit: float
) -> None:
    """Raise an error if a folder would lose too many of its images, or all of them.

    Parameters
    ----------
    folder : Path
    unreadable : sequence of (Path, str)
        Images that cannot be read, and why.
    n : int
        Number of all images of the folder.
    unreadable_limit : float
        The largest fraction that may be lost, from 0 to 1.

    Raises
    ------
    DataError
        A ValueError: one line that names the folder and the first files; or `unreadable_limit` is
        out of range.
    """
    hint = "0.05 is one image in twenty"
    check_range(
        "unreadable_limit", unreadable_limit, at_least=0, at_most=1, hint=hint, error=DataError
    )
    n_lost = len(unreadable)
    if n_lost < n and n_lost / n <= unreadable_limit:
        return
    names = "; ".join(f"{path.relative_to(folder)} ({reason})" for path, reason in unreadable[:3])
    allowed, way_out = "a folder must not lose all", ""
    if n_lost < n:
        allowed = f"unreadable_limit allows {unreadable_limit:.4g} of them"
        way_out = ", or raise unreadable_limit"
    raise DataError(
        f"{folder}: {n_lost} of {n} images cannot be read, and {allowed}: {names}"
        f"{'; …' if n_lost > 3 else ''}: replace or remove these files{way_out}"
    )


def readable(category: Category, unreadable_limit: float = 0.05, progress: bool = True) -> Category:
    """Leave out the images of a category that cannot be read, if they are few.

    A test image is also left out if its mask cannot be read, or has another size than the image:
    nobody could say where its defect is. An all-black mask is taken at its word.

    Parameters
    ----------
    category : Category
    unreadable_limit : float, default 0.05
        The largest fraction of the images of `train/good`, and of each folder of `test`, that may
        be left out; from 0 to 1.
    progress : bool, default True
        Show a progress bar.

    Returns
    -------
    Category
        Without these images; `unreadable` says which they are, in their order.

    Raises
    ------
    DataError
        A ValueError: more images of a folder than `unreadable_limit`, or all of them, cannot be
        read; or `unreadable_limit` is out of range.
    """
    samples = category.train + category.test
    _, lost = screen(samples, _check, progress)
    for folder, n in Counter(sample.path.parent for sample in samples).items():
        mine = [(sample.path, reason) for sample, reason in lost if sample.path.parent == folder]
        check_lost(folder, mine, n, unreadable_limit)
    gone = {sample for sample, _ in lost}
    return replace(
        category,
        train=tuple(sample for sample in category.train if sample not in gone),
        test=tuple(sample for sample in category.test if sample not in gone),
        unreadable=category.unreadable + tuple(Unreadable(*each) for each in lost),
    )


def _check(sample: Sample) -> None:
    """Raise an ImageError that says what makes an image useless, if anything does."""
    try:
        (sample.defect + sample.path.name).encode()
    except UnicodeEncodeError:
        reason = "its name is no UTF-8, and could not be written into a table; rename it"
        raise ImageError(sample.path, reason) from None
    height, width = check_image(sample.path)
    if sample.mask is None:
        return
    try:
        rows, columns = read_mask(sample.mask).shape
    except ImageError as error:
        mask = printable(sample.mask.name)
        raise ImageError(sample.path, f"its mask {mask}: {error.reason}") from error
    if (rows, columns) != (height, width):
        reason = f"its mask has {columns} × {rows} pixels, and the image {width} × {height}"
        raise ImageError(sample.path, reason)
