"""From a file to its pixels: images as RGB, masks as true and false."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from texad.errors import ImageError, printable

# Nothing else is tried, whatever a file calls itself.
FORMATS = ("PNG", "JPEG", "BMP", "DIB", "TIFF", "WEBP", "JPEG2000", "PPM")
FAINT = 16  # what lossy compression makes of black is darker than this
ORIENTATION = 274  # the tag of EXIF
# In a PNG, these may say that the image is to be turned.
ORIENTED = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")
T = TypeVar("T")


def read_image(path: str | Path) -> Image.Image:
    """Read an image of any common kind as RGB.

    Grey levels of 16 or 32 bits are taken to span 0 to 65535 and divided by 257; floats must lie in
    [0, 1]. No image is stretched by its own extremes, since brightness may be what tells a defect.
    Transparency is dropped, the colours stay as stored. The EXIF orientation is applied. Of several
    images in a file the first is read.

    Parameters
    ----------
    path : str or Path
        PNG, JPEG, BMP, TIFF, WebP, JPEG 2000, PGM or PPM.

    Returns
    -------
    PIL.Image.Image
        Mode RGB, 8 bits a channel.

    Raises
    ------
    ImageError
        A ValueError: the file cannot be read as an image; the message names it.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "grey.png"
    >>> Image.fromarray(np.array([[0, 257, 65535]], dtype=np.uint16)).save(file)
    >>> np.asarray(read_image(file)).tolist()
    [[[0, 0, 0], [1, 1, 1], [255, 255, 255]]]
    """
    return _read(path, _to_rgb)


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
    return np.array(read_image(path))


def check_image(path: str | Path) -> tuple[int, int]:
    """Make sure that an image can be read, at less than the cost of reading it where possible.

    Each part of a PNG has a checksum, and to compare them takes a fortieth of the time of decoding
    the image. Other files are decoded.

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
    return _size_of_whole_png(path) or read_pixels(path).shape[:2]


def read_size(path: str | Path) -> tuple[int, int]:
    """Read height and width of an image, in pixels, as `read_image` would give them.

    The pixels are decoded only where nothing else tells whether the image is to be turned.

    Raises
    ------
    ImageError
        As `read_image`, if the file is no image.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "lying.jpg"
    >>> lying = Image.new("RGB", (30, 20))
    >>> lying.getexif()[ORIENTATION] = 6  # to be turned by 90 degrees
    >>> lying.save(file, exif=lying.getexif())
    >>> read_size(file)
    (30, 20)
    """
    return _size_of_whole_png(path) or _read(path, _size, as_stored=True)


def read_mask(path: str | Path) -> np.ndarray:
    """Read a ground-truth mask: every pixel that is not black is defective.

    Any grey level or colour above 0 counts, so masks of 0 and 1, of 0 and 255, and with a level or
    colour for each kind of defect all work. Lossy compression (JPEG) leaves faint noise around
    edges: there, only levels above half of the brightest count.

    Parameters
    ----------
    path : str or Path
        As for `read_image`; or a folder, whose masks are united.

    Returns
    -------
    ndarray, bool, shape (height, width)
        True where the surface is defective.

    Raises
    ------
    ImageError
        A ValueError: the file cannot be read as an image, or a folder's masks have several sizes;
        the message names it.
    """
    if not Path(path).is_dir():
        return _read(path, _to_mask)
    files = sorted(file for file in Path(path).iterdir() if not file.name.startswith("."))
    masks = [read_mask(file) for file in files]
    if len({mask.shape for mask in masks}) != 1:
        raise ImageError(path, "a folder of masks, but they are none, or of several sizes")
    return np.any(masks, axis=0)


def _size_of_whole_png(path: str | Path) -> tuple[int, int] | None:
    """Height and width of an upright PNG, grey or RGB, that is whole; None for any other file."""
    try:
        if not Path(path).is_file():  # to open a pipe would wait for what never comes
            return None
        with Image.open(path, formats=("PNG",)) as image:
            image.verify()
        content = Path(path).read_bytes()
    except Exception:  # a damaged file makes Pillow raise errors of many kinds; `_read` names them
        return None
    is_plain = image.mode in ("L", "RGB") and not any(name in content for name in ORIENTED)
    return (image.height, image.width) if is_plain else None


def _read(path: str | Path, convert: Callable[[Image.Image], T], as_stored: bool = False) -> T:
    try:
        if Path(path).exists() and not Path(path).is_file():
            raise ValueError("no file, but a folder, a pipe or a device")
        # Given a path, Pillow maps grey TIFFs into memory and scrambles those that it has to turn.
        with open(path, "rb") as stream, Image.open(stream, formats=FORMATS) as image:
            if as_stored:
                return convert(image)
            upright = ImageOps.exif_transpose(image)
            upright.info["lossy"] = _is_lossy(image, path)
            return convert(upright)
    except Exception as error:  # a damaged file makes Pillow raise errors of many kinds
        # Without the path, which is named anyway.
        said = getattr(error, "strerror", None) or str(error)
        reason = (said.splitlines() or [type(error).__name__])[0]
        if isinstance(error, UnidentifiedImageError):
            reason = (
                "not one of the formats below" if Path(path).stat().st_size else "the file is empty"
            )
        raise ImageError(path, printable(reason)) from error


def _size(image: Image.Image) -> tuple[int, int]:
    if image.getexif().get(ORIENTATION, 1) > 4:  # rows are columns
        if image.format == "JPEG":
            return image.width, image.height
        image = ImageOps.exif_transpose(image)  # of a TIFF, Pillow may have turned the size
    return image.height, image.width


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
    levels = np.asarray(image) if _is_deep(image) else np.asarray(_to_rgb(image)).max(axis=2)
    return levels > (max(levels.max() / 2, FAINT) if image.info["lossy"] else 0)


def _is_lossy(image: Image.Image, path: str | Path) -> bool:
    """Tell whether an image, as it was opened, may have been changed by its compression."""
    if image.format in ("WEBP", "JPEG2000"):
        with open(path, "rb") as stream:
            head = stream.read(4096)
        # In JPEG 2000, five bytes of the marker COD precede the size of its blocks, and the last
        # byte says whether the wavelets can be reversed.
        cod = head.find(b"\xff\x52\x00\x0c")
        return (
            b"VP8L" not in head[:64]
            if image.format == "WEBP"
            else head[cod + 13 : cod + 14] != b"\1"
        )
    return image.format in ("JPEG", "MPO") or image.info.get("compression") == "jpeg"


def _is_deep(image: Image.Image) -> bool:
    """Tell whether a pixel is one number of more than 8 bits."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")
