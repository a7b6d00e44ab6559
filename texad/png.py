"""The fast way to read the plainest and most common file of an inspection camera: a PNG of 8 bits, grey or RGB.

Reading is what an image costs before the network sees it. libpng as imagecodecs builds it takes about half of Pillow's time, and PNG is lossless, so
the pixels are the same. Whatever is out of the ordinary is left to Pillow, which knows all of it.
"""

from collections.abc import Iterator

import numpy as np
from imagecodecs import PngError, png_decode
from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n" + b"\x00\x00\x00\rIHDR"
UNUSUAL = {b"eXIf", b"tRNS", b"acTL"}  # turned, transparent, animated


def decode(data: bytes) -> np.ndarray | None:
    """The pixels of a plain PNG.

    Parameters
    ----------
    data : bytes
        A whole file.

    Returns
    -------
    ndarray, uint8, shape (H, W, 3), or None
        None for any other file, a damaged or a suspiciously large one included: let Pillow read it, or say what is wrong with it.
    """
    if not data.startswith(SIGNATURE) or len(data) < 33:
        return None
    width, height = int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    depth, colour, _, _, interlaced = data[24:29]
    if depth != 8 or colour not in (0, 2) or interlaced or width * height > (Image.MAX_IMAGE_PIXELS or 0):
        return None
    if not UNUSUAL.isdisjoint(_chunks(data)):
        return None
    try:
        pixels = png_decode(data)
    except PngError:
        return None
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    return pixels if pixels.shape == (height, width, 3) else None


def _chunks(data: bytes) -> Iterator[bytes]:
    """The names of a file's parts, each of which says how long it is."""
    start = len(SIGNATURE) - 8
    while start + 8 <= len(data):
        yield data[start + 4 : start + 8]
        start += 12 + int.from_bytes(data[start : start + 4])
