"""From the layouts that people have to the one that this package reads, which is MVTec AD's (see `datasets`).

Some of the good images are kept for testing, all the others are for learning; every defective image is for testing. Where a defect is drawn, in
whatever way, it becomes a mask: a PNG of the image's size, upright as the image is shown. Images are copied as they are, or linked.
"""

import os
import shlex
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from texad.data.convert.annotations import class_file, coco_files, label_file, read_coco, read_yolo
from texad.data.convert.labels import (
    Labels,
    Mark,
    images,
    read_csv,
    read_folders,
)
from texad.data.convert.outlines import draw
from texad.data.names import GOOD, GOOD_CELLS, clean
from texad.data.walking import natural
from texad.errors import DataError, ImageError, printable
from texad.io.atomic import filling
from texad.io.images import FORMATS, check_image, read_mask

KINDS = ("folders", "csv", "coco", "yolo")
ORIENTATION = 0x0112  # the EXIF tag
SIDEWAYS = (5, 6, 7, 8)  # its values where width and height change places
COMBINED = "combined"  # as MVTec AD calls it
MOST_NOTES = 5  # of one sort


@dataclass(frozen=True)
class Imported:
    """What an import made.

    Attributes
    ----------
    root : Path
        The category's folder, absolute.
    kind : str
        Of the source.
    n_train, n_good : int
        Good images to learn from, and to test with.
    defects, masks : Counter of str
        How many images and masks each kind of defect has.
    good_labels : list of str
        The labels that were taken for good; none if what has no annotation was.
    notes : list of str
        What the user should know.
    """

    root: Path
    kind: str
    n_train: int
    n_good: int
    defects: Counter[str]
    masks: Counter[str]
    good_labels: list[str]
    notes: list[str]

    def __str__(self) -> str:
        """What to tell the user, with the commands that may follow."""
        good = (
            f"labelled {', '.join(self.good_labels)}" if self.good_labels else "without annotation"
        )
        lines = [f"{self.root}: imported as {self.kind}"]
        lines += [
            f"  train/good      {self.n_train:6d} images to learn from ({good})",
            f"  test/good       {self.n_good:6d} images",
        ]
        lines += [
            f"  test/{name:<10} {count:6d} images, {self.masks[name]} with a mask"
            for name, count in self.defects.items()
        ]
        notes = list(self.notes)
        if not self.defects:
            notes.append(
                "no defective image: a detector can be fit, but nothing here tells which defects it finds"
            )
        lines += [f"  note: {note}" for note in notes]
        lines = [printable(line) for line in lines]
        name = shlex.quote(self.root.name)
        lines.append(
            f"next: texad run --dataset {shlex.quote(str(self.root.parent))} --category {name}"
        )
        lines.append(
            f"or:   texad fit {shlex.quote(str(self.root))} --out {shlex.quote(self.root.name + '.safetensors')}"
        )
        return "\n".join(lines)


@dataclass
class _Entry:
    """All that is said of one image."""

    path: Path
    name: str  # in the category, without its ending
    defect: str
    marks: list[Mark]


def import_category(
    source: str | Path,
    target: str | Path,
    kind: str | None = None,
    *,
    good: Sequence[str] = (),
    test_fraction: float = 0.2,
    seed: int = 0,
    link: bool = False,
    image_folder: str | Path | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    mask_column: str | None = None,
    progress: bool = False,
) -> Imported:
    """Bring labelled images into MVTec AD's layout.

    Parameters
    ----------
    source : str or Path
        A folder, or the CSV, the COCO JSON or the `data.yaml` that speaks of the images.
    target : str or Path
        The category's folder, DATASET/CATEGORY. It must not exist, and appears only when it is complete.
    kind : {"folders", "csv", "coco", "yolo"} or None
        See `labels.read_folders`, `labels.read_csv`, `annotations.read_coco` and `annotations.read_yolo`; None: guessed.
    good : sequence of str
        Which folders, labels or categories are good; none: those called good, ok, normal and the like, and in a CSV also 0, false and no.
    test_fraction : float, default 0.2
        How many of the good images are for testing, at least 0 and less than 1. If it is not 0, at least one is.
    seed : int, default 0
        Of the choice.
    link : bool, default False
        Link to the images instead of copying them.
    image_folder : str, Path or None
        Where the paths in a CSV or JSON start; None: around the file.
    path_column, label_column, mask_column : str or None
        Of a CSV; None: guessed.
    progress : bool, default False
        Show a bar.

    Returns
    -------
    Imported

    Raises
    ------
    DataError
        A ValueError: the source is not as it should be, or has no good images; it names the entry.
    FileNotFoundError, FileExistsError
        There is no source, or the target exists.
    """
    if not 0 <= test_fraction < 1:
        raise DataError(
            f"the test fraction must be at least 0 and less than 1 (0.2 keeps one good image in five for testing), not {test_fraction}"
        )
    origin, root = _source(source, kind), _target(target)
    if root.is_relative_to(origin):
        raise DataError(
            f"{root} would be within {origin}, and imported the next time: choose another place"
        )
    kind = kind or guess(origin)
    labels = Labels(good, GOOD_CELLS if kind == "csv" else GOOD)
    marks = _marks(origin, kind, labels, image_folder, (path_column, label_column, mask_column))
    for name in good:
        if not any(Labels([name]).is_good(label) for label in labels.good):
            raise DataError(
                f"nothing is labelled {name!r}, which was named as good: the labels are {labels.listed()}"
            )
    notes = labels.notes
    entries = _readable(_merged(marks), notes, progress)
    train, test = _split(
        [entry for entry in entries if entry.defect == "good"], test_fraction, seed, labels
    )
    defective = [entry for entry in entries if entry.defect != "good"]
    if not test + defective:
        raise DataError(
            "no image would be left to test with, since none is defective: let the test fraction be more than 0"
        )
    masks: Counter[str] = Counter()
    empty: list[str] = []
    with (
        filling(root) as folder,
        tqdm(total=len(entries), desc="writing", unit="image", disable=not progress) as bar,
    ):
        for split, part in (("train", train), ("test", test + defective)):
            for entry in part:
                _put(
                    entry.path,
                    folder / split / entry.defect / (entry.name + entry.path.suffix),
                    link,
                )
                if (mask := _mask(entry.path, entry.marks, empty)) is not None:
                    _save(mask, folder / "ground_truth" / entry.defect / f"{entry.name}_mask.png")
                    masks[entry.defect] += 1
                bar.update()
    notes += _first(empty, "left out, since it marks nothing of the image:")
    defects = Counter(
        {
            name: count
            for name, count in sorted(Counter(entry.defect for entry in defective).items())
        }
    )
    if n_combined := sum(len({mark.defect for mark in entry.marks}) > 1 for entry in defective):
        notes.append(
            f"{n_combined} images have several kinds of defect: they are in test/{COMBINED}"
        )
    return Imported(root, kind, len(train), len(test), defects, masks, sorted(labels.good), notes)


def guess(source: Path) -> str:
    """Which of KINDS a source is.

    Raises
    ------
    DataError
        A ValueError: it is a file of another kind.
    """
    if source.is_file():
        kinds = {".csv": "csv", ".tsv": "csv", ".json": "coco", ".yaml": "yolo", ".yml": "yolo"}
        if source.suffix.lower() not in kinds:
            raise DataError(
                f"{source} is neither a folder nor a .csv, .json or .yaml: name one of those, or say what it is by --kind"
            )
        return kinds[source.suffix.lower()]
    if coco_files(source):
        return "coco"
    names = [Path(root, name) for root, folders, _ in os.walk(source) for name in folders]
    has_good = any(Labels().is_good(folder.name) for folder in names)
    tables = [file for file in source.iterdir() if file.suffix.lower() in (".csv", ".tsv")]
    if not has_good and len(tables) == 1:
        return "csv"
    if class_file(source) or any(label_file(source, image) for image in images(source, Labels())):
        return "yolo"
    return "folders"


# -- what is said of the images --------------------------------------------------------------------


def _source(source: str | Path, kind: str | None) -> Path:
    if kind is not None and kind not in KINDS:
        raise DataError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}")
    path = Path(os.path.abspath(Path(source).expanduser()))
    if not str(source) or not path.exists():
        raise FileNotFoundError(
            f"there is no {str(source)!r} to import: name a folder, or the .csv, .json or .yaml that speaks of the images"
        )
    parts = (
        {folder.name for folder in path.glob("[!.]*/") if folder.is_dir()}
        if path.is_dir()
        else set()
    )
    if (
        kind is None
        and {"train", "test"} <= parts <= {"train", "test", "ground_truth"}
        and {file.name for file in (path / "train").glob("[!.]*")} == {"good"}
    ):
        raise DataError(
            f"{path} is laid out as MVTec AD already: use it as it is, with --dataset {path.parent} --category {path.name}, or split it anew by "
            "--kind folders"
        )
    return path


def _target(target: str | Path) -> Path:
    path = Path(os.path.abspath(Path(target).expanduser()))
    if os.path.lexists(path):
        raise FileExistsError(
            f"{path} exists, and nothing is overwritten: name another category, or remove it"
        )
    if path.name == "all" or path.name != clean(path.name):
        raise DataError(
            f"a category cannot be called {path.name!r}: choose another name for --to DATASET/CATEGORY"
        )
    if (path.parent / "train" / "good").is_dir():
        raise DataError(
            f"{path.parent} is itself a category: name a folder of categories, as in --to DATASET/CATEGORY"
        )
    return path


def _marks(
    source: Path,
    kind: str,
    labels: Labels,
    image_folder: str | Path | None,
    columns: tuple[str | None, ...],
) -> list[Mark]:
    if kind in ("folders", "yolo") and image_folder is not None:
        raise DataError(
            f"--images is for csv and coco, not for {kind}: there, the images are in the source"
        )
    if kind != "csv" and any(columns):
        raise DataError(
            f"--path-column, --label-column and --mask-column are for csv, not for {kind}: leave them out, or say --kind csv"
        )
    folder = (
        None if image_folder is None else Path(os.path.abspath(Path(image_folder).expanduser()))
    )
    if folder is not None and not folder.is_dir():
        raise FileNotFoundError(f"{folder}, where the images should be, is no folder")
    if kind == "folders":
        if not source.is_dir():
            raise DataError(f"{source} is a file, and no folder of folders: name a folder")
        return read_folders(source, labels)
    if kind == "csv":
        return read_csv(source, labels, folder, *columns)
    return read_coco(source, labels, folder) if kind == "coco" else read_yolo(source, labels)


def _merged(marks: Sequence[Mark]) -> list[_Entry]:
    """What is said of each image, in natural order of the images."""
    if not marks:
        raise DataError(
            "nothing is said of any image: see whether the source is the right one, and of which --kind it is"
        )
    of_image: dict[Path, list[Mark]] = {}
    for mark in marks:
        of_image.setdefault(mark.path.resolve(), []).append(mark)
    try:
        common = os.path.commonpath([mark.path.parent for mark in marks])
    except ValueError:  # of several drives
        common = ""
    entries: list[_Entry] = []
    taken: set[tuple[str, str]] = set()
    found = [
        (os.path.relpath(said[0].path, common) if common else str(said[0].path), said)
        for said in of_image.values()
    ]
    for relative, said in sorted(found, key=lambda pair: natural(pair[0])):
        kinds = {mark.defect: mark for mark in reversed(said)}
        if len(kinds) > 1 and "good" in kinds:
            other = next(mark for defect, mark in kinds.items() if defect != "good")
            raise DataError(
                f"{said[0].path} is good by {kinds['good'].where}, but {other.defect} by {other.where}: remove one of the two"
            )
        defect = next(iter(kinds)) if len(kinds) == 1 else COMBINED
        name = _name(Path(relative), defect, taken)
        entries.append(_Entry(said[0].path, name, defect, said))
    return entries


def _name(relative: Path, defect: str, taken: set[tuple[str, str]]) -> str:
    """A name that no other image of the defect has. It is the image's own if possible, else its folders go before it, and else a number after it."""
    own, long = clean(relative.stem), clean("_".join(relative.with_suffix("").parts))
    numbered = (f"{long}_{i}" for i in range(2, len(taken) + 3))
    for name in (own, long, *numbered):
        name = (
            f"{name}_image" if name.casefold().endswith("_mask") else name
        )  # so is the mask of another one called
        if (defect.casefold(), name.casefold()) not in taken:
            taken.add((defect.casefold(), name.casefold()))
            return name
    raise AssertionError("one of so many names is free")


def _readable(entries: Sequence[_Entry], notes: list[str], progress: bool) -> list[_Entry]:
    """Those that can be read; the others are noted. Of an image that needs no mask only the beginning is looked at, the rest is when it is used."""
    kept, reasons = [], []
    for entry in tqdm(entries, "looking", unit="image", disable=not progress):
        try:
            if any(mark.shapes for mark in entry.marks):
                check_image(entry.path)
            else:
                _opened(entry.path, lambda image: image.size)
            kept.append(entry)
        except ImageError as error:
            reasons.append(f"{error.path} ({error.reason})")
    notes += _first(reasons, "left out, since it cannot be read:")
    return kept


def _first(reasons: Sequence[str], what: str) -> list[str]:
    more = [f"{what} {len(reasons) - MOST_NOTES} more"] if len(reasons) > MOST_NOTES else []
    return [f"{what} {reason}" for reason in reasons[:MOST_NOTES]] + more


def _split(
    good: list[_Entry], fraction: float, seed: int, labels: Labels
) -> tuple[list[_Entry], list[_Entry]]:
    """Good images to learn from, and to test with."""
    if not good:
        raise DataError(
            f"there is no good image to learn from; the labels are {labels.listed()}: say which of them are good by --good LABEL, or add images"
        )
    if len(good) < 2:
        raise DataError(
            f"there is one good image, {good[0].path}, and at least 2 are needed, to learn from and to test with: add images"
        )
    n_test = min(max(round(len(good) * fraction), 1), len(good) - 1) if fraction else 0
    chosen = set(np.random.default_rng(seed).permutation(len(good))[:n_test].tolist())
    return [entry for i, entry in enumerate(good) if i not in chosen], [
        entry for i, entry in enumerate(good) if i in chosen
    ]


# -- what is written -------------------------------------------------------------------------------


def _put(image: Path, file: Path, link: bool) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    if not link:
        shutil.copyfile(image, file)
        return
    try:
        file.symlink_to(image.resolve())
    except OSError as error:
        raise OSError(
            f"{image} cannot be linked to from {file.parent} ({error.strerror}): leave out --link, which copies the images"
        ) from error


def _save(mask: np.ndarray, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask.astype(np.uint8) * 255).save(file)


def _mask(image: Path, marks: Sequence[Mark], empty: list[str]) -> np.ndarray | None:
    """The mask of all that is marked in an image, bool, upright; None if nothing is. What marks nothing is added to `empty`.

    Tools differ in whether they turn an image as its EXIF orientation says. The size that they give tells: it is that of the image as stored or as
    shown. Where it does not tell, the image was marked as it is shown.
    """
    drawn = [mark for mark in marks if isinstance(mark.shapes, Path) or mark.shapes]
    if not drawn:
        return None
    height, width = check_image(image)
    shown, orientation = (
        (width, height),
        _opened(image, lambda opened: opened.getexif().get(ORIENTATION, 1)),
    )
    stored = (height, width) if orientation in SIDEWAYS else shown
    whole = np.zeros((height, width), dtype=bool)
    for mark in drawn:
        mask = read_mask(mark.shapes) if isinstance(mark.shapes, Path) else None
        frame = mask.shape[::-1] if mask is not None else mark.frame or shown
        if frame not in (stored, shown):
            raise DataError(
                f"{mark.where} is for an image of {frame[0]} x {frame[1]} pixels, but {image} has {width} x {height}: take that which it was made for"
            )
        if not isinstance(mark.shapes, Path):
            try:
                mask = draw(mark.shapes, *frame)
            except ValueError as error:
                raise DataError(f"{mark.where}: {error}: export it again") from None
        if mask is None or not mask.any():
            empty.append(str(mark.shapes) if isinstance(mark.shapes, Path) else mark.where)
        else:
            whole |= mask if frame == shown else _upright(mask, orientation)
    return whole if whole.any() else None


def _upright(mask: np.ndarray, orientation: int) -> np.ndarray:
    image = Image.fromarray(mask.astype(np.uint8))
    image.getexif()[ORIENTATION] = orientation
    return np.asarray(ImageOps.exif_transpose(image)) > 0


def _opened(path: Path, look: Callable[[Image.Image], Any]) -> Any:
    """What is seen of an image without its pixels."""
    try:
        if not path.is_file():  # to open a pipe would wait for what never comes
            raise ValueError("no file, but a pipe, a device or a link to nothing")
        with open(path, "rb") as stream, Image.open(stream, formats=FORMATS) as image:
            return look(image)
    except Exception as error:  # a damaged file makes Pillow raise errors of many kinds
        unknown = isinstance(error, UnidentifiedImageError)
        raise ImageError(
            path,
            "not one of the formats below"
            if unknown
            else printable(getattr(error, "strerror", None) or str(error)),
        ) from error
