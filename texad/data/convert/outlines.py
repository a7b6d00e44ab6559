"""Where a defect is, as annotation tools write it: outlines and run lengths, drawn as masks.

Coordinates are continuous, as COCO and YOLO have them: the pixel in column c and row r is the
square from (c, r) to (c + 1, r + 1), and it belongs to a polygon if its centre lies within.
Pillow's `ImageDraw.polygon` is not used, since it rounds the corners to whole pixels and paints the
border as well: a box of 5 by 4 pixels would become one of 6 by 5.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

LEEWAY = 0.1  # by this fraction of its image a relative outline may lead out


@dataclass(frozen=True)
class Polygon:
    """An outline; what it crosses itself around is outside (even-odd rule).

    Attributes
    ----------
    points : ndarray, float64, shape (K, 2)
        x and y of each corner.
    relative : bool
        False: in pixels. True: as fractions of the image's width and height.
    is_line : bool
        True: a line, whose ends are not connected; it has no inside.
    """

    points: np.ndarray
    relative: bool = False
    is_line: bool = False

    def fault(self) -> str:
        """Say why this is no outline but a slip of the mouse; empty if it is one."""
        n_corners = len(np.unique(self.points, axis=0))
        # A tool may round, and people draw over the border. Put so that NaN is outside, too.
        if self.relative and not (np.abs(self.points - 0.5) <= 0.5 + LEEWAY).all():
            return (
                "leads out of the image (its numbers should be fractions from 0 to 1, not pixels)"
            )
        return f"has {n_corners} of 3 corners" if n_corners < (2 if self.is_line else 3) else ""


@dataclass(frozen=True)
class Runs:
    """A mask as run lengths: how many pixels are out, in, out, ... of it.

    Attributes
    ----------
    counts : ndarray, int64, shape (n,)
    height, width : int
        Of the mask; their product is the sum of the counts.
    left, top : int
        Where the mask begins in the image.
    by_rows : bool
        False: pixels are counted down the columns, from left to right, as in COCO. True: along the
        rows, from top to bottom.
    """

    counts: np.ndarray
    height: int
    width: int
    left: int = 0
    top: int = 0
    by_rows: bool = False

    def __post_init__(self) -> None:
        if (self.counts < 0).any() or self.counts.sum() != self.height * self.width:
            raise ValueError(f"run lengths are not those of {self.width} x {self.height} pixels")
        if self.left < 0 or self.top < 0:
            raise ValueError("a mask begins outside of the image")


def box(
    x: float,
    y: float,
    width: float,
    height: float,
    *,
    relative: bool = False,
    degrees: float = 0,
    about_corner: bool = False,
) -> Polygon:
    """Rectangle with its upper left corner at (x, y), turned clockwise as seen.

    Parameters
    ----------
    x, y, width, height : float
        As they are before turning.
    relative : bool, default False
        See `Polygon`.
    degrees : float, default 0
    about_corner : bool, default False
        Turn it about its upper left corner instead of its centre.

    Examples
    --------
    >>> box(2, 1, 4, 2, degrees=90).points.astype(int).tolist()
    [[5, 0], [5, 4], [3, 4], [3, 0]]
    """
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], dtype=np.float64)
    centre = np.zeros(2) if about_corner else np.array([width / 2, height / 2])
    return Polygon((corners - centre) @ _turn(degrees) + centre + (x, y), relative)


def ellipse(x: float, y: float, radius_x: float, radius_y: float, *, degrees: float = 0) -> Polygon:
    """Ellipse around (x, y), turned clockwise as seen, as a polygon of 128 corners."""
    angles = np.linspace(0, 2 * np.pi, 128, endpoint=False)
    around = np.column_stack([radius_x * np.cos(angles), radius_y * np.sin(angles)])
    return Polygon(around @ _turn(degrees) + (x, y))


def _turn(degrees: float) -> np.ndarray:
    """Matrix that turns rows of x and y, with y down: clockwise as seen."""
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([(cosine, sine), (-sine, cosine)])


def runs(mask: np.ndarray, left: int = 0, top: int = 0) -> Runs:
    """Run lengths of a mask, bool, shape (height, width).

    Examples
    --------
    >>> runs(np.array([[False, True], [True, False]])).counts
    array([1, 2, 1])
    """
    flat = np.concatenate([[False], mask.ravel()])
    ends = [0, *np.flatnonzero(np.diff(flat)), mask.size]
    height, width = mask.shape
    return Runs(np.diff(ends), height, width, left, top, by_rows=True)


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

    Examples
    --------
    >>> draw([box(1, 0, 2, 1)], width=4, height=2).astype(int)
    array([[0, 1, 1, 0],
           [0, 0, 0, 0]])
    """
    mask = np.zeros((height, width), dtype=bool)
    for shape in shapes:
        if isinstance(shape, Polygon):
            points = shape.points * ((width, height) if shape.relative else 1)
            mask |= (_line if shape.is_line else _fill)(points, width, height)
        else:
            flat = np.repeat(np.arange(len(shape.counts)) % 2 == 1, shape.counts)
            sides = (shape.height, shape.width)
            inside = flat.reshape(sides, order="C" if shape.by_rows else "F")
            part = mask[shape.top : shape.top + shape.height, shape.left : shape.left + shape.width]
            part |= inside[: part.shape[0], : part.shape[1]]
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
    return mask if mask.any() else _line(np.vstack([points, points[:1]]), width, height)


def _line(points: np.ndarray, width: int, height: int) -> np.ndarray:
    """The pixels that a line passes: a scratch thinner than a pixel may miss all centres."""
    image = Image.new("1", (width, height))
    # Far out, Pillow would take its time: nothing that matters is there.
    near = np.clip(np.floor(points), -1, (width, height)).astype(int)
    ImageDraw.Draw(image).line([*map(tuple, near.tolist())], fill=1)
    return np.array(image)
