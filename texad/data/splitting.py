"""One way to keep some images out: by lot, at least one, and never all.

Whole images are kept out, since the places of one image resemble each other; and whole groups,
where images come in groups: several photographs of one piece resemble each other, too. A group on
both sides would be known from the training, and look more normal than anything new.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from texad.errors import check_range

# with fewer good images none is set aside to stop the training or to set a threshold: one or two
# could not tell when to stop, and a false-alarm rate of 0.05 needs 19 calibration images
FEW = 20
Image = TypeVar("Image")  # whatever stands for one


def split(
    n: int, fraction: float, rng: np.random.Generator, groups: Sequence[str] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Split images by lot into those that are kept and those that are held out.

    Parameters
    ----------
    n : int
        Number of images.
    fraction : float
        Fraction to hold out, rounded to whole images; if it is above 0, at least one of two images
        is held out, and never all.
    rng : numpy.random.Generator
        Draws one permutation of the groups.
    groups : sequence of str, length n, optional
        Group of each image: a group is held out whole, and then `fraction` is one of the groups. By
        default each image is a group of its own.

    Returns
    -------
    kept, held_out : ndarray, int64
        Indices of the images, in ascending order.
    """
    numbers = _numbers(n, groups)
    n_groups = int(numbers.max(initial=-1)) + 1
    n_held_out = min(max(1, round(n_groups * fraction)), n_groups - 1) if fraction > 0 else 0
    is_held_out = np.isin(numbers, rng.permutation(n_groups)[: max(n_held_out, 0)])
    return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)


def folds(
    n: int, n_folds: int, rng: np.random.Generator, groups: Sequence[str] | None = None
) -> np.ndarray:
    """Deal images into folds of about equal size by lot; a group lies in one fold.

    Parameters
    ----------
    n : int
        Number of images.
    n_folds : int
        At most; there are no more than groups.
    rng : numpy.random.Generator
    groups : sequence of str, length n, optional
        As in `split`.

    Returns
    -------
    ndarray of int, shape (n,)
        Number of the fold of each image, from 0.

    Examples
    --------
    >>> folds(5, 2, np.random.default_rng(0), groups=["a", "a", "b", "c", "c"]).tolist()
    [1, 1, 0, 0, 0]
    """
    numbers = _numbers(n, groups)
    sizes = np.bincount(numbers)
    n_folds = min(n_folds, len(sizes))
    fold_of, filled = np.zeros(len(sizes), dtype=int), np.zeros(n_folds, dtype=int)
    lots = rng.permutation(len(sizes))
    for group in lots[np.argsort(-sizes[lots], kind="stable")]:  # the largest first
        fold_of[group] = filled.argmin()
        filled[fold_of[group]] += sizes[group]
    return fold_of[numbers]


def keep_out(
    images: Sequence[Image], fraction: float, seed: int = 0, groups: Sequence[str] | None = None
) -> tuple[list[Image], list[Image]]:
    """Divide good images into those to fit to, and calibration images, which are kept out.

    Parameters
    ----------
    images : sequence
    fraction : float
        See `split`.
    seed : int, default 0
    groups : sequence of str, optional
        As in `split`.

    Returns
    -------
    train, calibration : list
        Both in the order given.

    Raises
    ------
    ValueError
        If `fraction` is not at least 0 and below 1, or `seed` is negative.

    Examples
    --------
    >>> keep_out("abcdef", 0.3)
    (['a', 'b', 'e', 'f'], ['c', 'd'])
    """
    check_range("calibration_fraction", fraction, at_least=0, below=1)
    check_range("seed", seed, at_least=0)
    train, calibration = split(len(images), fraction, np.random.default_rng(seed), groups)
    return [images[i] for i in train], [images[i] for i in calibration]


def _numbers(n: int, groups: Sequence[str] | None) -> np.ndarray:
    """Number of the group of each image, from 0."""
    if groups is None:
        return np.arange(n)
    if len(groups) != n:
        raise ValueError(f"groups must name one for each of {n} images, not {len(groups)}")
    return np.unique(np.asarray(groups, dtype=str), return_inverse=True)[1]
