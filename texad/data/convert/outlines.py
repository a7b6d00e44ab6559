"""Where a defect is, as annotation tools write it: polygons and run lengths, drawn as masks.

Coordinates are continuous, as COCO and YOLO have them: the pixel in column c and row r is the
square from (c, r) to (c + 1, r + 1), and it belongs to a polygon if its centre lies within.
Pillow's `ImageDraw.polygon` is not used, since it rounds the corners to whole pixels and paints the
border as well: a box of 5 by 4 pixels would become one of 6 by 5.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw


@dataclass(frozen=True)
class Polygon:
    """An outline; what it crosses itself around is outside (even-odd rule).

    Attributes
    ----------
    points : ndarray, float64, shape (K, 2)
        x and y of each corner, K >= 2.
    relative : bool
        False: in pixels. True: as fractions of the image's width and height.
    """

    points: np.ndarray
    relative: bool = False


@dataclass(frozen=True)
class Runs:
    """A mask as COCO's run lengths: how many pixels are out, in, out, ... of it.

    Pixels are counted down the columns, from left to right.

    Attributes
    ----------
    counts : ndarray, int64, shape (n,)
    height, width : int
        Of the mask; their product is the sum of the counts.
    """

    counts: np.ndarray
    height: int
    width: int


def box(x: float, y: float, width: float, height: float, relative: bool = False) -> Polygon:
    """Rectangle with its upper left corner at (x, y)."""
    right, bottom = x + width, y + height
    return Polygon(
        np.array([(x, y), (right, y), (right, bottom), (x, bottom)], dtype=np.float64), relative
    )


def uncompressed(text: str) -> np.ndarray:
    """Decode COCO's compressed run lengths.

    Each number is written in groups of five bits, the lowest first, one letter each: 48 plus the
    bits, plus 32 if more groups follow. The highest bit of the last group is the sign. From the
    fourth number on, what is written is the difference to the number before the last.

    maskApi.c (`rleFrString`) of the COCO API, https://github.com/cocodataset/cocoapi.

    Parameters
    ----------
    text : str

    Returns
    -------
    ndarray, int64, shape (n,)

    Raises
    ------
    ValueError
        The text is no such code.

    Examples
    --------
    >>> uncompressed("1234")
    array([1, 2, 3, 6])
    """
    counts: list[int] = []
    number = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or shift > 40:
            raise ValueError(f"{letter!r} is out of place in compressed run lengths")
        number |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                number -= 1 << shift
            counts.append(number + (counts[-2] if len(counts) > 2 else 0))
            number = shift = 0
    if shift:
        raise ValueError("the compressed run lengths end within a number")
    return np.array(counts, dtype=np.int64)


def draw(shapes: Sequence[Polygon | Runs], width: int, height: int) -> np.ndarray:
    """Draw the mask of everything that lies in one of the shapes.

    Parameters
    ----------
    shapes : sequence of Polygon or Runs
        What leads out of the image is cut off.
    width, height : int
        Of the image, in pixels.

    Returns
    -------
    ndarray, bool, shape (height, width)

    Raises
    ------
    ValueError
        Run lengths are of an image of another size.

    Examples
    --------
    >>> draw([box(1, 0, 2, 1)], width=4, height=2).astype(int)
    array([[0, 1, 1, 0],
           [0, 0, 0, 0]])
    """
    mask = np.zeros((height, width), dtype=bool)
    for shape in shapes:
        if isinstance(shape, Polygon):
            mask |= _fill(shape.points * ((width, height) if shape.relative else 1), width, height)
        else:
            inside = np.repeat(np.arange(len(shape.counts)) % 2 == 1, shape.counts)
            mask |= inside.reshape(shape.width, shape.height).T
    return mask


def _fill(points: np.ndarray, width: int, height: int) -> np.ndarray:
    """The pixels whose centres lie in a polygon.

    Along the line through the centres of a row, each edge that is crossed turns out into in, or in
    into out, for all that is right of it.
    """
    mask = np.zeros((height, width), dtype=bool)
    (left, top), (right, bottom) = (
        np.clip(np.ceil(corner - 0.5), 0, (width, height)).astype(int)
        for corner in (points.min(axis=0), points.max(axis=0))
    )
    turns = np.zeros((bottom - top, right - left + 1), dtype=np.int32)
    for (x1, y1), (x2, y2) in zip(points, np.roll(points, -1, axis=0), strict=True):
        # Rows of which the centres are between the ends.
        first, last = np.clip(np.ceil(np.sort([y1, y2]) - 0.5), top, bottom).astype(int)
        if first < last:
            rows = np.arange(first, last)
            crossings = x1 + (rows + 0.5 - y1) * ((x2 - x1) / (y2 - y1))
            columns = np.clip(np.ceil(crossings - 0.5), left, right).astype(int)
            turns[rows - top, columns - left] += 1
    mask[top:bottom, left:right] = np.cumsum(turns[:, :-1], axis=1) % 2 == 1
    return mask if mask.any() else _line(points, width, height)


def _line(points: np.ndarray, width: int, height: int) -> np.ndarray:
    """The pixels that an outline passes: a scratch thinner than a pixel may miss all centres."""
    image = Image.new("1", (width, height))
    # Far out, Pillow would take its time: nothing that matters is there.
    near = np.clip(np.floor(points), -1, (width, height)).astype(int)
    ImageDraw.Draw(image).line([*map(tuple, near.tolist()), tuple(near[0].tolist())], fill=1)
    return np.array(image)
