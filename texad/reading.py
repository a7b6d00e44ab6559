"""From a file to its pixels: images as RGB, masks as true and false.

Cameras write many kinds of files. Pillow knows them all, and says what is wrong with the damaged ones. Reading is also what an image costs before the
network sees it, so the plainest and most common kind, a PNG of 8 bits, grey or RGB, has a faster way: libpng as imagecodecs builds it takes about half of
Pillow's time, and PNG is lossless, so the pixels are the same. Whatever is out of the ordinary is left to Pillow.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from imagecodecs import PngError, png_decode
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("PNG", "JPEG", "BMP", "DIB", "TIFF")  # nothing else is tried, whatever a file calls itself
PNG = b"\x89PNG\r\n\x1a\n" + b"\x00\x00\x00\rIHDR"  # how one starts
UNUSUAL = {b"eXIf", b"tRNS", b"acTL"}  # turned, transparent, animated


def read_image(path: str | Path) -> Image.Image:
    """Read an image of any common kind as RGB.

    Grey levels of 16 or 32 bits are taken to span 0 to 65535 and divided by 257; floats must lie in [0, 1].
    No image is stretched by its own extremes, since brightness may be what tells a defect. Transparency is
    dropped, the colours stay as stored. The EXIF orientation is applied. Of several images in a file the first
    is read.

    Parameters
    ----------
    path : str or Path
        PNG, JPEG, BMP or TIFF.

    Returns
    -------
    PIL.Image.Image
        Mode RGB, 8 bits a channel.

    Raises
    ------
    ValueError
        If the file cannot be read as an image; the message names it.
    """
    return Image.fromarray(read_pixels(path))


def read_pixels(path: str | Path) -> np.ndarray:
    """Read an image as `read_image` does, into an array.

    Returns
    -------
    ndarray, uint8, shape (height, width, 3)

    Raises
    ------
    ValueError
        As `read_image`.
    """
    try:
        with open(path, "rb") as stream:
            start = stream.read(len(PNG))
            pixels = decode_png(start + stream.read()) if start == PNG else None
    except OSError:  # below, it is said with what is wrong
        pixels = None
    return np.array(_read(path, _to_rgb)) if pixels is None else pixels


def read_mask(path: str | Path) -> np.ndarray:
    """Read a ground-truth mask: every pixel that is not black is defective.

    Any grey level or colour above 0 counts, so masks of 0 and 1, of 0 and 255, and with a level or colour for
    each kind of defect all work. JPEG is a poor choice for masks: its noise around edges counts, too.

    Parameters
    ----------
    path : str or Path
        As for `read_image`.

    Returns
    -------
    ndarray, bool, shape (height, width)
        True where the surface is defective.

    Raises
    ------
    ValueError
        If the file cannot be read as an image; the message names it.
    """
    return _read(path, _to_mask)


def decode_png(data: bytes) -> np.ndarray | None:
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
    if not data.startswith(PNG) or len(data) < 33:
        return None
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
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


def _read(path: str | Path, convert):
    try:
        # Given a path, Pillow maps grey TIFFs into memory and scrambles those that it has to turn.
        with open(path, "rb") as stream, Image.open(stream, formats=FORMATS) as image:
            return convert(ImageOps.exif_transpose(image))
    except UnidentifiedImageError as error:
        reason, cause = "not one of the formats below", error
    except Exception as error:  # a damaged file makes Pillow raise errors of many kinds
        reason, cause = (str(error).splitlines() or [type(error).__name__])[0], error
    raise ValueError(
        f"image {path} cannot be read ({reason}): replace it by a PNG, JPEG, BMP or TIFF of 8 bits, or remove it"
    ) from cause


def _to_rgb(image: Image.Image) -> Image.Image:
    if _is_deep(image):
        levels = np.asarray(image).astype(np.float64)
        white = 1.0 if image.mode == "F" else 65535.0
        if not (levels.min() >= 0 and levels.max() <= white):  # put so that NaN fails, too
            raise ValueError(f"grey levels {levels.min():g} to {levels.max():g}, expected 0 to {white:g}")
        image = Image.fromarray(np.rint(levels * (255 / white)).astype(np.uint8))
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")  # otherwise Pillow warns of palettes with transparency
    return image.convert("RGB")


def _to_mask(image: Image.Image) -> np.ndarray:
    if _is_deep(image):
        return np.asarray(image) > 0
    return np.asarray(_to_rgb(image)).any(axis=2)


def _is_deep(image: Image.Image) -> bool:
    """True where a pixel is one number of more than 8 bits."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def _chunks(data: bytes) -> Iterator[bytes]:
    """The names of a file's parts, each of which says how long it is."""
    start = len(PNG) - 8
    while start + 8 <= len(data):
        yield data[start + 4 : start + 8]
        start += 12 + int.from_bytes(data[start : start + 4], "big")
