"""Synthetic defects: damage painted on good images, to choose between detectors.

A detector that is chosen by the test images is flattered by them. Defect-free images are all that
the method may learn from, and they are enough for a rehearsal: damage some in ways that differ from
each other, and see which detector tells them from the others. The kinds are simple on purpose, and
have nothing to do with the data set's own defects.

The idea: CutPaste, Li et al., CVPR 2021, arXiv:2104.04015; DRAEM, Zavrtanik, Kristan, Skočaj, ICCV
2021, arXiv:2108.07610.
"""

import numpy as np
from scipy import ndimage

KINDS = ("paste", "scratch", "stain", "blur")


def damage(image: np.ndarray, kind: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Damage a good image in one place.

    Parameters
    ----------
    image : ndarray, float32 in [0, 1], shape (H, W, 3)
    kind : {"paste", "scratch", "stain", "blur"}
        A patch of the image itself at a wrong place, a line that is too dark or too bright, a spot
        that is, or a spot out of focus.
    rng : numpy.random.Generator

    Returns
    -------
    damaged : ndarray, float32 in [0, 1], shape (H, W, 3)
    mask : ndarray, bool, shape (H, W)
        Where it was damaged.

    Raises
    ------
    ValueError
        If there is no such kind.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> damaged, mask = damage(np.full((32, 32, 3), 0.5, np.float32), "stain", rng)
    >>> bool((damaged[mask] != 0.5).all())
    True
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}")
    height, width = image.shape[:2]
    # Small spots are as frequent as large ones.
    area = np.exp(rng.uniform(np.log(0.002), np.log(0.05))) * (2 if kind == "blur" else 1)
    sign = rng.choice([-1, 1])
    mask = _line(height, width, rng) if kind == "scratch" else _spot(height, width, area, rng)
    if kind == "paste":
        down = rng.integers(height // 5, 4 * height // 5 + 1)
        right = rng.integers(width // 5, 4 * width // 5 + 1)
        moved = np.roll(image, (down, right), axis=(0, 1))
        source = moved[:: rng.choice([-1, 1]), :: rng.choice([-1, 1])] * rng.uniform(0.8, 1.2)
    elif kind == "scratch":
        source = image + sign * rng.uniform(0.15, 0.5)
    elif kind == "stain":
        source = image * (1 + sign * rng.uniform(0.12, 0.4))
    else:
        blur = rng.uniform(0.01, 0.025) * height
        source = ndimage.gaussian_filter(image, (blur, blur, 0))
    # No hard edge.
    soft = ndimage.gaussian_filter(mask.astype(np.float32), rng.uniform(0.5, 2))[:, :, None]
    return np.clip(image * (1 - soft) + source * soft, 0, 1).astype(np.float32), mask


def _spot(height: int, width: int, area: float, rng: np.random.Generator) -> np.ndarray:
    """A round or long spot with a wavy border; `area` is its fraction of the image."""
    y, x = np.mgrid[:height, :width]
    y, x = y - rng.uniform(0.1, 0.9) * height, x - rng.uniform(0.1, 0.9) * width
    turn, stretch = rng.uniform(0, np.pi), np.exp(rng.normal(0, 0.4))
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    angle = np.arctan2(across, along)
    border = 1 + sum(
        rng.normal(0, 0.12) * np.cos(n * angle + rng.uniform(0, 2 * np.pi)) for n in (2, 3, 5)
    )
    radius = np.sqrt(area * height * width / np.pi)
    distance = np.hypot(along / stretch, across * stretch) / radius
    return (distance < border) | (distance <= distance.min())  # at least one pixel


def _line(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A line that wanders."""
    mask = np.zeros((height, width), dtype=bool)
    point, heading = rng.uniform(0.1, 0.9, 2) * (height, width), rng.uniform(0, 2 * np.pi)
    for _ in range(rng.integers(4, 12)):
        heading += rng.normal(0, 0.5)
        step = 0.05 * min(height, width) * np.array([np.sin(heading), np.cos(heading)])
        for position in point + np.linspace(0, 1, 2 + int(np.hypot(*step)))[:, None] * step:
            row, column = np.round(position).astype(int)
            if 0 <= row < height and 0 <= column < width:
                mask[row, column] = True
        point = point + step
    return ndimage.binary_dilation(mask) if rng.random() < 0.5 else mask
