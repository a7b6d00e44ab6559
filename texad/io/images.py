"""From a file to its pixels: images as RGB, masks as true and false.

Cameras write many kinds of files. Pillow knows them all, and says what is wrong with the damaged ones. Reading is also what an image costs before the
network sees it, so the plainest and most common kind, a PNG of 8 bits, grey or RGB, has a faster way: libpng as imagecodecs builds it takes about half of
Pillow's time, and PNG is lossless, so the pixels are the same. Whatever is out of the ordinary is left to Pillow.
"""

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
from imagecodecs import png_decode
from PIL import Image, ImageOps, UnidentifiedImageError

from texad.errors import ImageError, printable

FORMATS = (
    "PNG",
    "JPEG",
    "BMP",
    "DIB",
    "TIFF",
)  # nothing else is tried, whatever a file calls itself
PNG = b"\x89PNG\r\n\x1a\n" + b"\x00\x00\x00\rIHDR"  # how one starts
T = TypeVar("T")
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
    ImageError
        A ValueError: the file cannot be read as an image; the message names it.
    """
    return Image.fromarray(read_pixels(path))


def read_pixels(path: str | Path) -> np.ndarray:
    """Read an image as `read_image` does, into an array.

    Returns
    -------
    ndarray, uint8, shape (height, width, 3)

    Raises
    ------
    ImageError
        As `read_image`.
    """
    pixels = decode_png(_png(path))
    return np.array(_read(path, _to_rgb)) if pixels is None else pixels


def check_image(path: str | Path) -> tuple[int, int]:
    """Make sure that an image can be read, at less than the cost of reading it where that is possible.

    Each part of a PNG has a checksum, and comparing all of them takes a tenth of the time of decoding the image. Other files are decoded.

    Parameters
    ----------
    path : str or Path
        As for `read_image`.

    Returns
    -------
    (int, int)
        Height and width, in pixels, as `read_image` would give them.

    Raises
    ------
    ImageError
        As `read_image`.
    """
    data = _png(path)
    if (size := _plain_size(data)) and _is_whole(data):
        return size
    return read_pixels(path).shape[:2]


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
    ImageError
        A ValueError: the file cannot be read as an image; the message names it.
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
    if not (size := _plain_size(data)) or not _is_whole(
        data
    ):  # imagecodecs loses a reference with each damaged one
        return None
    try:
        pixels = png_decode(data)
    except Exception:  # PngError, and what goes wrong while it is worded
        return None
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    return pixels if pixels.shape == (*size, 3) else None


def _png(path: str | Path) -> bytes:
    """The bytes of a file that starts as a PNG does; of others, and of what is no file, none."""
    try:
        if not Path(path).is_file():  # to open a pipe would wait for what never comes
            return b""
        with open(path, "rb") as stream:
            start = stream.read(len(PNG))
            return start + stream.read() if start == PNG else b""
    except (OSError, ValueError):  # _read says what is wrong
        return b""


def _plain_size(data: bytes) -> tuple[int, int] | None:
    """Height and width of a plain PNG; None for any other file."""
    if not data.startswith(PNG) or len(data) < 33:
        return None
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    depth, colour, _, _, interlaced = data[24:29]
    if (
        depth != 8
        or colour not in (0, 2)
        or interlaced
        or not 0 < width * height <= (Image.MAX_IMAGE_PIXELS or 0)
    ):
        return None
    return (height, width) if UNUSUAL.isdisjoint(name for name, _, _ in _chunks(data)) else None


def _is_whole(data: bytes) -> bool:
    """Does a PNG have pixels, an end, and in every part what its checksum says?"""
    view, names = memoryview(data), set()
    for name, start, end in _chunks(data):
        names.add(name)
        if zlib.crc32(view[start - 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            return False
        if name == b"IEND":
            return b"IDAT" in names
    return False


def _read(path: str | Path, convert: Callable[[Image.Image], T]) -> T:
    try:
        if Path(path).exists() and not Path(path).is_file():
            raise ValueError("no file, but a folder, a pipe or a device")
        # Given a path, Pillow maps grey TIFFs into memory and scrambles those that it has to turn.
        with open(path, "rb") as stream, Image.open(stream, formats=FORMATS) as image:
            return convert(ImageOps.exif_transpose(image))
    except UnidentifiedImageError as error:
        empty = not Path(path).stat().st_size
        reason = "the file is empty" if empty else "not one of the formats below"
        cause: Exception = error
    except Exception as error:  # a damaged file makes Pillow raise errors of many kinds
        said = getattr(error, "strerror", None) or str(
            error
        )  # without the path, which is named anyway
        reason = (said.splitlines() or [type(error).__name__])[0]
        cause = error
    raise ImageError(path, printable(reason)) from cause


def _to_rgb(image: Image.Image) -> Image.Image:
    if _is_deep(image):
        levels = np.asarray(image).astype(np.float64)
        white = 1.0 if image.mode == "F" else 65535.0
        if not (levels.min() >= 0 and levels.max() <= white):  # put so that NaN fails, too
            raise ValueError(
                f"grey levels {levels.min():g} to {levels.max():g}, expected 0 to {white:g}"
            )
        image = Image.fromarray(np.rint(levels * (255 / white)).astype(np.uint8))
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")  # otherwise Pillow warns of palettes with transparency
    return image.convert("RGB")


def _to_mask(image: Image.Image) -> np.ndarray:
    if _is_deep(image):
        return np.asarray(image) > 0
    return np.any(np.asarray(_to_rgb(image)), axis=2)


def _is_deep(image: Image.Image) -> bool:
    """True where a pixel is one number of more than 8 bits."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of the content of a file's parts, each of which says how long it is."""
    start = len(PNG)
    while start <= len(data):
        end = start + int.from_bytes(data[start - 8 : start - 4], "big")
        yield data[start - 4 : start], start, end
        start = end + 12
