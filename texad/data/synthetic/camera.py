"""A photograph of a surface: light, contrast, focus, noise.

No two photographs of a production line are equal. How bright an image is, how strong its contrast,
how warm its colour must therefore say nothing about defects. In a written data set these conditions
are not drawn at random but dealt out evenly (a low-discrepancy sequence): good and defective test
images then share the same spread of light, even where there are only a few of them.
"""

import numpy as np
from scipy import ndimage

from texad.data.synthetic.textures import UNITS, Surface, coordinates

CONDITIONS = 8  # level, contrast, warmth, green cast, noise, focus, distance, tilt of the light
MASK_THRESHOLD = 0.02  # about five grey levels: less is no visible change


def dealt_conditions(rng: np.random.Generator, index: int) -> np.ndarray:
    """Conditions of image `index` of a group, each evenly spread over [0, 1] within the group.

    The additive sequence of M. Roberts ("The unreasonable effectiveness of quasirandom sequences",
    2018), with a random start.
    """
    base = 2.0
    for _ in range(60):  # the root of x^(d+1) = x + 1, the golden ratio for d = 1
        base = (1 + base) ** (1 / (CONDITIONS + 1))
    return (rng.random(CONDITIONS) + index * base ** -np.arange(1.0, CONDITIONS + 1)) % 1


def distance(conditions: np.ndarray) -> float:
    """Scale of the texture: how near the camera is."""
    return float(0.96 + 0.08 * conditions[6])


def photograph(
    surface: Surface, damaged: Surface | None, conditions: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Take the photograph of a surface, and find out where the damage shows.

    Parameters
    ----------
    surface : Surface
        Without defect.
    damaged : Surface or None
        The same piece with a defect; None if it has none.
    conditions : ndarray, shape (CONDITIONS,), in [0, 1]
    rng : numpy.random.Generator

    Returns
    -------
    image : ndarray, uint8, shape (size, size, 3)
    mask : ndarray, bool, shape (size, size)
        Where the photographs with and without defect differ visibly.
    """
    level, contrast, warmth, green, noise, focus, _, tilt = conditions
    x, y = coordinates(surface.size)
    direction = rng.uniform(0, 2 * np.pi)
    slope = np.cos(direction) * (x / 128 - 1) + np.sin(direction) * (y / 128 - 1)
    light = (0.99 + 0.02 * level) * (1 + (0.005 + 0.025 * tilt) * slope.astype(np.float32))
    warmth, green = 0.02 * (warmth - 0.5), 0.012 * (green - 0.5)
    tint = np.asarray((1 + warmth, 1 + green, 1 - warmth), dtype=np.float32)
    blur = (0.36 + 0.14 * focus) * surface.size / 256
    middle = surface.colour.mean((0, 1))
    # Light that veils the whole image adds brightness but no contrast.
    veiled = middle + 0.016 * (level - 0.5) * middle
    gain = 1 + surface.contrast_spread * (2 * contrast - 1)

    def expose(colour: np.ndarray) -> np.ndarray:
        return (
            ndimage.gaussian_filter(veiled + gain * (colour - middle), (blur, blur, 0))
            * light[..., None]
            * tint
        )

    image = expose((damaged or surface).colour)
    mask = np.zeros(image.shape[:2], dtype=bool)
    if damaged is not None:
        mask = _visible(np.clip(image, 0, 1), np.clip(expose(surface.colour), 0, 1), surface)
    grain = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(0.008 + 0.005 * noise)
    return np.round(np.clip(image + grain, 0, 1) * 255).astype(np.uint8), mask


def _visible(image: np.ndarray, without: np.ndarray, surface: Surface) -> np.ndarray:
    """Where an image visibly differs from the one without the defect.

    Gaps are closed where defect and texture happen to be equally bright. Those of a mesh are its
    openings, and the wires that cross the damaged ones. And a wire that lies less than a unit, a
    quarter of its thickness, beside its place does not look bent: on a mesh, a pixel is unchanged
    if it is as bright as a neighbour was, unless a pixel beside it is changed.
    """

    def differs(other: np.ndarray) -> np.ndarray:
        change = np.abs(image - other).max(axis=2)
        return change > min(MASK_THRESHOLD, 0.5 * change.max())

    visible, pixels, reach = differs(without), surface.size / UNITS, 2.0
    if surface.mesh:
        reach, near = surface.mesh.spacing / 2, (2 * round(pixels) + 1,) * 2
        darkest = ndimage.minimum_filter(without, (*near, 1))
        brightest = ndimage.maximum_filter(without, (*near, 1))
        moved = differs(np.clip(image, darkest, brightest))
        visible &= ndimage.binary_dilation(moved, np.ones(near))
    radius = max(round(reach * pixels), 1)
    closed = ndimage.binary_closing(np.pad(visible, 2 * radius), iterations=radius)
    mask = ndimage.binary_fill_holes(closed[2 * radius : -2 * radius, 2 * radius : -2 * radius])
    return without_slivers(mask)


def without_slivers(mask: np.ndarray) -> np.ndarray:
    """Leave out the regions of a mask that are smaller than a fiftieth of the largest."""
    regions = ndimage.label(mask, np.ones((3, 3)))[0]
    areas = np.bincount(regions[mask], minlength=1)
    return mask & (areas > 0.02 * areas.max())[regions]
