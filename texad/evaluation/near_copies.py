"""Near-copies among good images: a sign that they come in groups of which nobody said a word.

Several photographs of one piece, or neighbours from one batch, have the same marks in the same
places. If some of them are learnt from and others calibrate, the threshold is set by images that
the detector half knows, and new ones bring more false alarms than promised.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from texad.model.base import at_once

ALIKE = 0.7  # correlation of two images, from which on they are near-copies
MANY = 0.1  # fraction of images with a near-copy, from which on it is no coincidence
CHANNELS = 64  # that are compared, of all
FEWEST = 8  # images that can be compared
MOST = 500  # images that are compared with all


@dataclass(frozen=True)
class NearCopies:
    """What was found.

    Attributes
    ----------
    n : int
        Number of images that have a near-copy.
    n_compared : int
        Number of images that were compared with all.
    pairs : list of (str, str)
        Names of the most alike, no image twice; two pairs at most.
    """

    n: int
    n_compared: int
    pairs: list[tuple[str, str]]

    @property
    def many(self) -> bool:
        """Whether they are so many that the images must be in groups."""
        return self.n >= max(MANY * self.n_compared, 1)


def near_copies(features: Sequence[np.ndarray], names: Sequence[str]) -> NearCopies:
    """Find images that have a near-copy among the others.

    Each channel is divided by its standard deviation, the mean of all images is subtracted (what
    they all share, such as a border), and from each image its own mean over the places (its light).
    What is left says what is where; two images are near-copies if its correlation is above 0.7.
    Places that one of them lacks (NaN) say nothing.

    Chosen on surfaces with known groups, with a ResNet-50 trained on ImageNet: 76% of the
    photographs of magnetic tiles have a near-copy (761 of 121 tiles, in up to six exposures), and
    36% of the solar cells (466 from 13 neighbourhoods). Of independent images, none has one in
    three kinds of paper (31 to 36 images), none in five synthetic textures with a random backbone
    (96 to 400), and with the trained one none in leather and wood, but 4% of 400 images of a
    strictly regular grid, where two may be in step by chance. One image in ten lies between, by a
    factor of more than two on both sides. With few images the rule is as safe: the largest
    correlation of independent ones stayed below 0.45 among 8 and 0.65 among 20 on the grid, and
    below 0.3 elsewhere.

    Unseen are near-copies that are shifted by more than a place or two, such as frames of a moving
    web, and a set whose images all show one and the same piece: what all share is subtracted.

    Parameters
    ----------
    features : sequence of ndarray, float32, shape (n, C, H, W)
        Of each split; may be memory-mapped. Of more than 500 images, each second (third, …) is
        compared with all, of large images fewer; fewer than 8 are not compared, since their mean is
        too much their own.
    names : sequence of str
        Of all images, in the same order.

    Returns
    -------
    NearCopies

    Examples
    --------
    >>> first = np.random.default_rng(0).normal(size=(20, 8, 4, 4))
    >>> near_copies([first], range(20)).many
    False
    >>> again = first[:3] + 0.1  # the same in another light
    >>> near_copies([first, again], range(23))
    NearCopies(n=6, n_compared=23, pairs=[(0, 20), (1, 21)])
    """
    if len(names) < FEWEST:
        return NearCopies(0, 0, [])
    images = [(split, i) for split in features for i in range(len(split))]
    anchors = np.arange(0, len(images), -(-len(images) // at_once(features[0], MOST)))

    def maps(numbers: Iterable[int]) -> np.ndarray:
        return np.stack([images[n][0][images[n][1], :CHANNELS] for n in numbers])

    def rows(numbers: Iterable[int]) -> np.ndarray:
        found = (maps(numbers) - mean) / deviation
        found -= np.nanmean(found, axis=(2, 3), keepdims=True)
        found = np.nan_to_num(found).reshape(len(found), -1)
        return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-6)

    sample = maps(anchors)
    mean = np.nansum(sample, axis=0) / np.maximum((~np.isnan(sample)).sum(axis=0), 1)
    deviation = np.nanstd(sample, axis=(0, 2, 3), keepdims=True)
    deviation[deviation == 0] = 1
    compared = rows(anchors).T
    chunks = (range(i, min(i + 64, len(images))) for i in range(0, len(images), 64))
    alike = np.concatenate([rows(chunk) @ compared for chunk in chunks]).round(3)
    alike[anchors, np.arange(len(anchors))] = 0  # an image is no copy of itself
    n = int((alike > ALIKE).any(axis=0).sum())
    pairs: list[tuple[str, str]] = []
    while len(pairs) < 2 and alike.max() > ALIKE:
        row, column = np.unravel_index(alike.argmax(), alike.shape)
        pair = sorted((int(row), int(anchors[column])))
        pairs.append((names[pair[0]], names[pair[1]]))
        alike[pair], alike[:, np.isin(anchors, pair)] = 0, 0
    return NearCopies(n, len(anchors), pairs)
