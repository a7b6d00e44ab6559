"""Images covered by their heatmaps: where a detector's attention was, on the surface that it looked at."""

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from PIL import Image

HEAT = "inferno"  # the colours of anomaly maps, here and in texad.figures.plots


def overlay(image: Image.Image, anomaly_map: np.ndarray, heat: Sequence[float]) -> Image.Image:
    """An image covered by its anomaly map: what is low stays clear, so that the surface shows, and what is high glows.

    Parameters
    ----------
    image : PIL.Image.Image
        RGB, of any size.
    anomaly_map : ndarray, shape (H, W)
        Of any size; it is stretched.
    heat : (float, float)
        The values that are clear and that glow most; the scale between them is logarithmic, since one strong defect would leave all others dark.

    Returns
    -------
    PIL.Image.Image
        As large as `image`.
    """
    low, high = np.log(np.maximum(heat, np.finfo(np.float32).tiny))
    level = (np.log(np.maximum(anomaly_map, np.finfo(np.float32).tiny)) - low) / max(
        high - low, 1e-6
    )
    stretched = Image.fromarray(np.clip(level, 0, 1).astype(np.float32)).resize(
        image.size, Image.Resampling.BICUBIC
    )
    level = np.clip(np.asarray(stretched), 0, 1)
    alpha = np.minimum(1.6 * level, 0.8)[..., None]
    pixels = (1 - alpha) * np.asarray(image) + alpha * 255 * colormaps[HEAT](level)[..., :3]
    return Image.fromarray(np.rint(pixels).astype(np.uint8))
