"""From a file to its pixels: images as RGB, masks as true and false.

Cameras measure 10, 12 or 14 bits, and files hold 8 or 16. So a file of 16 bits does not say which
grey level is white, and to take 65535 for it would leave 16 grey levels of 4096. `find_white` looks
at the images that a detector learns from; whoever reads an image later gives what it found.
"""

import logging
import sys
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from texad.errors import ImageError, printable

# Nothing else is tried, whatever a file calls itself.
FORMATS = ("PNG", "JPEG", "BMP", "DIB", "TIFF", "WEBP", "JPEG2000", "PPM")
FAINT = 16  # what lossy compression makes of black is darker than this
WHITE = 65535  # of grey levels of 16 bits, if nothing else is known
WHITES = (255, 1023, 4095, 16383)  # of 8, 10, 12 and 14 bits
BITS, ORIENTATION = 258, 274  # tags of TIFF and EXIF
# In a PNG, these may say that the image is to be turned.
ORIENTED = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")
T = TypeVar("T")
LOG = logging.getLogger(__name__)


class _Stored(NamedTuple):
    """What only the file tells, as it was opened.

    `white` is the level that it says is white, `order` the order of the two bytes of a colour of 16
    bits ("L" or "B"); None and "" where there is none.
    """

    path: str | Path
    is_lossy: bool
    white: int | None
    order: str


def read_image(path: str | Path, white: int = WHITE) -> Image.Image:
    """Read an image of any common kind as RGB.

    Grey levels of 16 or 32 bits are taken to span 0 to `white`; floats must lie in [0, 1]. No image
    is stretched by its own extremes, since brightness may be what tells a defect. Transparency is
    dropped, the colours stay as stored. The EXIF orientation is applied. Of several images in a
    file the first is read.

    Parameters
    ----------
    path : str or Path
        PNG, JPEG, BMP, TIFF, WebP, JPEG 2000, PGM or PPM.
    white : int, default 65535
        Level that becomes 255 in images of 16 or 32 bits, see `find_white`. Higher ones, too, which
        is logged as a warning. What the file itself says comes first: a packed TIFF of 12 bits has
        the white 4095.

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
    return _read(path, partial(_to_rgb, white=white))


def read_pixels(path: str | Path, white: int = WHITE) -> np.ndarray:
    """Read an image as `read_image` does, into an array.

    Returns
    -------
    ndarray, uint8, shape (height, width, 3)

    Raises
    ------
    ImageError
        As `read_image`.
    """
    return np.array(read_image(path, white))


def find_white(paths: Iterable[str | Path]) -> int:
    """Find which grey level is white in images of 16 bits.

    It is the white of the fewest bits (8, 10, 12, 14 or 16) that hold all their levels. Images of 8
    bits, and those that say themselves what is white, are only opened. As soon as a level needs 16
    bits, no further image is read.

    Parameters
    ----------
    paths : iterable of path
        The images that a detector learns from.

    Returns
    -------
    int
        65535 if there is none of 16 bits, or all are black.

    Raises
    ------
    ImageError
        As `read_image`.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "camera.png"
    >>> Image.fromarray(np.array([[0, 1024, 4000]], dtype=np.uint16)).save(file)
    >>> find_white([file])
    4095
    >>> np.asarray(read_image(file, white=4095))[0, :, 0].tolist()
    [0, 64, 249]
    """
    highest = 0
    for path in paths:
        highest = max(highest, _read(path, _highest, as_stored=True))
        if highest > WHITES[-1]:
            break
    return next((white for white in WHITES if 0 < highest <= white), WHITE)


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
    return _size_of_whole_png(path) or _read(path, lambda image, _: _size(image), as_stored=True)


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
        return _read(path, _to_mask, what="mask")
    files = sorted(file for file in Path(path).iterdir() if not file.name.startswith("."))
    masks = [read_mask(file) for file in files]
    if len({mask.shape for mask in masks}) != 1:
        raise ImageError(path, "a folder of masks, but they are none, or of several sizes", "mask")
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


def _read(
    path: str | Path,
    convert: Callable[[Image.Image, _Stored], T],
    as_stored: bool = False,
    order: str = "",
    what: str = "image",
) -> T:
    """Open an image and convert it; `order` is one to take colours of 16 bits in, see `_Stored`."""
    try:
        if Path(path).exists() and not Path(path).is_file():
            raise ValueError("no file, but a folder, a pipe or a device")
        # Given a path, Pillow maps grey TIFFs into memory and scrambles those that it has to turn.
        with open(path, "rb") as stream, Image.open(stream, formats=FORMATS) as image:
            stored = _stored(image, path)
            if order:
                image.tile = [
                    ImageFile._Tile(codec, extent, offset, (raw[:-1] + order, *rest))
                    for codec, extent, offset, (raw, *rest) in map(_tile, image.tile)
                ]
            return convert(image if as_stored else ImageOps.exif_transpose(image), stored)
    except Exception as error:  # a damaged file makes Pillow raise errors of many kinds
        # Without the path, which is named anyway.
        said = getattr(error, "strerror", None) or str(error)
        reason = (said.splitlines() or [type(error).__name__])[0]
        if isinstance(error, UnidentifiedImageError):
            reason = (
                "not one of the formats below" if Path(path).stat().st_size else "the file is empty"
            )
        raise ImageError(path, printable(reason), what) from error


def _stored(image: ImageFile.ImageFile, path: str | Path) -> _Stored:
    white, order = None, ""
    if getattr(image, "tag_v2", {}).get(BITS) == (12,):
        white = WHITES[2]
    for codec, _, _, (raw, *rest) in map(_tile, image.tile[:1]):
        if codec.startswith("ppm") and rest != [WHITE]:  # Pillow scales by what the file says
            white = WHITE
        if raw.startswith("RGB") and raw[-4:-1] == ";16":
            order = raw[-1].replace("N", sys.byteorder[0].upper())
    return _Stored(path, _is_lossy(image, path), white, order)


def _tile(tile: Any) -> tuple[str, Any, int, tuple]:
    """Codec, extent, offset and arguments of a tile; a PPM of 16 bits is as raw as a TIFF."""
    codec, extent, offset, how = tile
    if codec == "ppm" and how == ("RGB", WHITE):
        codec, how = "raw", ("RGB;16B", 0, 1)
    return codec, extent, offset, how if isinstance(how, tuple) else (how,)


def _size(image: Image.Image) -> tuple[int, int]:
    if image.getexif().get(ORIENTATION, 1) > 4:  # rows are columns
        if image.format == "JPEG":
            return image.width, image.height
        image = ImageOps.exif_transpose(image)  # of a TIFF, Pillow may have turned the size
    return image.height, image.width


def _levels(image: Image.Image, stored: _Stored) -> np.ndarray | None:
    """Levels of more than 8 bits, grey (H, W) or in colours (H, W, 3); None where there are 8."""
    if stored.order:  # Pillow takes the upper byte; in the other order, that is the lower one
        upper, lower = (
            _read(stored.path, lambda each, _: np.asarray(each)[..., :3], order=order)
            for order in (stored.order, "BL".replace(stored.order, ""))
        )
        return 256 * upper.astype(np.uint16) + lower
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return np.asarray(image)
    return None


def _highest(image: Image.Image, stored: _Stored) -> int:
    """The highest level, where nothing but the levels tells what is white; else 0."""
    levels = None if image.mode == "F" or stored.white else _levels(image, stored)
    return 0 if levels is None else int(levels.max())


def _to_rgb(image: Image.Image, stored: _Stored, white: int = WHITE) -> Image.Image:
    # Of 16 bits, the upper 8 are what Pillow gives.
    levels = None if stored.order and white == WHITE else _levels(image, stored)
    if levels is not None:
        most = 1 if image.mode == "F" else WHITE
        if not (levels.min() >= 0 and levels.max() <= most):  # put so that NaN fails, too
            raise ValueError(
                f"grey levels {levels.min():g} to {levels.max():g}, expected 0 to {most}"
            )
        white = 1 if image.mode == "F" else stored.white or white
        if levels.max() > white:
            _say_clipped(stored.path, int(levels.max()), white)
        shares = np.minimum(levels.astype(np.float64), white) * (255 / white)
        image = Image.fromarray(np.rint(shares).astype(np.uint8))
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")  # otherwise Pillow warns of palettes with transparency
    return image.convert("RGB")


@lru_cache(maxsize=4096)  # an image may be read several times
def _say_clipped(path: str | Path, highest: int, white: int) -> None:
    LOG.warning(
        "image %s has levels up to %d, above the white of this detector (%d): they count as white",
        *(printable(path), highest, white),
    )


def _to_mask(image: Image.Image, stored: _Stored) -> np.ndarray:
    levels = _levels(image, stored)
    if levels is None:
        levels = np.asarray(_to_rgb(image, stored))
    levels = levels.reshape(*levels.shape[:2], -1).max(axis=2)
    return levels > (max(levels.max() / 2, FAINT) if stored.is_lossy else 0)


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
