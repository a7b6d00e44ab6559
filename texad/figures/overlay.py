"""Images covered by their anomaly maps: where on the surface the errors are large."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from PIL import Image

from texad.io.images import WHITE, read_image

HEAT = "inferno"  # the colours of anomaly maps in all figures


def overlay(image: Image.Image, anomaly_map: np.ndarray, heat: Sequence[float]) -> Image.Image:
    """Cover an image by its anomaly map: low values stay clear, high ones glow.

    Parameters
    ----------
    image : PIL.Image.Image
        RGB, in any size.
    anomaly_map : ndarray, shape (H, W)
        As large as the image, see `texad.model.places.enlarge`.
    heat : (float, float)
        The values that are clear and that glow most. The scale between them is logarithmic, since
        one strong defect would leave all others dark.

    Returns
    -------
    PIL.Image.Image
        RGB, as large as `image`.

    Raises
    ------
    ValueError
        If the map has another size than the image.

    Examples
    --------
    >>> grey = Image.new("RGB", (2, 2), (100, 100, 100))
    >>> covered = overlay(grey, np.array([[1.0, 1.0], [1.0, 90.0]]), heat=(1, 100))
    >>> covered.getpixel((0, 0)), covered.getpixel((1, 1))
    ((100, 100, 100), (216, 219, 137))
    """
    if anomaly_map.shape != (image.height, image.width):
        raise ValueError(
            f"anomaly_map {anomaly_map.shape} must be as large as the image, "
            f"{(image.height, image.width)}; see places.enlarge"
        )
    low, high = np.log(np.maximum(heat, np.finfo(np.float32).tiny))
    # NaN stays clear
    level = (np.log(np.fmax(anomaly_map, np.finfo(np.float32).tiny)) - low) / max(high - low, 1e-6)
    level = np.clip(level, 0, 1)
    alpha = np.minimum(1.6 * level, 0.8)[..., None]
    pixels = (1 - alpha) * np.asarray(image) + alpha * 255 * colormaps[HEAT](level)[..., :3]
    return Image.fromarray(np.rint(pixels).astype(np.uint8))


def thumbnail(path: str | Path, size: int, white: int = WHITE) -> Image.Image:
    """Read an image in its own shape, its longer side at most `size` pixels.

    Parameters
    ----------
    path : str or Path
    size : int
    white : int, default 65535
        See `read_image`.

    Returns
    -------
    PIL.Image.Image
        RGB.

    Raises
    ------
    ImageError
        It cannot be read.
    """
    image = read_image(path, white)
    image.thumbnail((size, size))
    return image
