"""One way to keep some images out: by lot, at least one, and never all.

Whole images are kept out, since the places of one image resemble each other.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from texad.errors import check_range

Image = TypeVar("Image")  # whatever stands for one


def split(n: int, fraction: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Split images by lot into those that are kept and those that are held out.

    Parameters
    ----------
    n : int
        Number of images.
    fraction : float
        Fraction to hold out, rounded to whole images; if it is above 0, at least one of two images
        is held out, and never all.
    rng : numpy.random.Generator
        Draws one permutation of the images.

    Returns
    -------
    kept, held_out : ndarray, int64
        Indices of the images, in ascending order.
    """
    n_held_out = min(max(1, round(n * fraction)), n - 1) if fraction > 0 else 0
    order = rng.permutation(n)
    return np.sort(order[n_held_out:]), np.sort(order[:n_held_out])


def keep_out(
    images: Sequence[Image], fraction: float, seed: int = 0
) -> tuple[list[Image], list[Image]]:
    """Divide good images into those to fit to, and calibration images, which are kept out.

    Parameters
    ----------
    images : sequence
    fraction : float
        See `split`.
    seed : int, default 0

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
    train, calibration = split(len(images), fraction, np.random.default_rng(seed))
    return [images[i] for i in train], [images[i] for i in calibration]
