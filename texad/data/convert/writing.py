"""What an import writes: images where MVTec AD has them, and masks of all that is marked."""

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps
from tqdm import tqdm

from texad.data.convert.marks import Mark
from texad.data.convert.outlines import draw
from texad.errors import DataError
from texad.io.escape import write_table
from texad.io.images import FORMATS, read_mask

ORIENTATION = 0x0112  # the EXIF tag
SIDEWAYS = (5, 6, 7, 8)  # its values where width and height change places


@dataclass(frozen=True)
class Entry:
    """All that is said of one image, and its height and width."""

    path: Path
    name: str  # in the category, without its ending
    defect: str
    marks: list[Mark]
    size: tuple[int, int] = (0, 0)

    @property
    def split(self) -> str:
        """Part of the source's split; empty if it says none."""
        return self.marks[0].split

    @property
    def piece(self) -> str:
        """The folder that the image is in, where each piece has one."""
        return self.path.parent.name

    @property
    def file_name(self) -> str:
        return self.name + self.path.suffix


def write(
    folder: Path, parts: Sequence[tuple[str, Entry]], link: bool, progress: bool
) -> tuple[Counter[str], list[str]]:
    """Write a category.

    Parameters
    ----------
    folder : Path
    parts : sequence of (str, Entry)
        Each image, and "train" or "test".
    link, progress : bool
        See `category.import_category`.

    Returns
    -------
    masks : Counter of str
        How many masks each kind of defect has.
    empty : list of str
        What marks nothing of its image.

    Raises
    ------
    DataError
        A ValueError: what is marked is of an image of another size.
    """
    masks: Counter[str] = Counter()
    empty: list[str] = []
    for part, entry in tqdm(parts, "writing", unit="image", disable=not progress):
        file = folder / part / entry.defect / entry.file_name
        file.parent.mkdir(parents=True, exist_ok=True)
        if link:
            file.symlink_to(entry.path.resolve())
        else:
            shutil.copyfile(entry.path, file)
        if (mask := _mask(entry, empty)) is not None:
            file = folder / "ground_truth" / entry.defect / f"{entry.name}_mask.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask.astype(np.uint8) * 255).save(file)
            masks[entry.defect] += 1
    return masks, empty


def write_groups(file: Path, parts: Sequence[tuple[str, Entry]]) -> None:
    """Write which images show one piece, as `texad.data.groups` reads it."""
    paths = [f"{part}/{entry.defect}/{entry.file_name}" for part, entry in parts]
    pieces = [entry.piece for _, entry in parts]
    write_table(file, pd.DataFrame({"path": paths, "group": pieces}))


def _mask(entry: Entry, empty: list[str]) -> np.ndarray | None:
    """Draw the mask of all that is marked in an image, bool, upright; None if nothing is.

    What marks nothing is added to `empty`. Tools differ in whether they turn an image as its EXIF
    orientation says. The size that they give tells: it is that of the image as stored or as shown.
    Where it does not tell, the image was marked as it is shown.
    """
    drawn = [mark for mark in entry.marks if mark.shapes]
    if not drawn:
        return None
    with Image.open(entry.path, formats=FORMATS) as image:
        orientation = image.getexif().get(ORIENTATION, 1)
    shown = entry.size[::-1]
    stored = entry.size if orientation in SIDEWAYS else shown
    whole = np.zeros(entry.size, dtype=bool)
    for mark in drawn:
        files = [shape for shape in mark.shapes if isinstance(shape, Path)]
        outlines = [shape for shape in mark.shapes if not isinstance(shape, Path)]
        masks = [(str(file), read_mask(file)) for file in files]
        for frame in [mark.frame or shown, *(mask.shape[::-1] for _, mask in masks)]:
            if frame not in (stored, shown):
                raise DataError(
                    f"{mark.where} is for an image of {frame[0]} x {frame[1]} pixels, but "
                    f"{entry.path} has {shown[0]} x {shown[1]}: take that which it was made for"
                )
        if outlines:
            masks.append((mark.where, draw(outlines, *(mark.frame or shown))))
        for what, mask in masks:
            frame = mask.shape[::-1]
            if not mask.any():
                empty.append(what)
            whole |= mask if frame == shown else _upright(mask, orientation)
    return whole if whole.any() else None


def _upright(mask: np.ndarray, orientation: int) -> np.ndarray:
    image = Image.fromarray(mask.astype(np.uint8))
    image.getexif()[ORIENTATION] = orientation
    return np.asarray(ImageOps.exif_transpose(image)) > 0
