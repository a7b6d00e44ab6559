"""From the layouts that people have to the one that this package reads: MVTec AD's, see `datasets`.

Some of the good images are kept for testing, all the others are for learning; every defective image
is for testing. Where a defect is drawn, in whatever way, it becomes a mask: a PNG of the image's
size, upright as the image is shown. Images are copied as they are, or linked.
"""

import os
import shlex
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from texad.data import splitting
from texad.data.convert.coco import coco_files, read_coco
from texad.data.convert.folders import read_folders
from texad.data.convert.marks import Labels, Mark, images
from texad.data.convert.outlines import draw
from texad.data.convert.table import read_csv, tables_of
from texad.data.convert.yolo import class_file, label_file, read_yolo
from texad.data.names import GOOD, GOOD_CELLS, clean
from texad.data.screening import screen
from texad.data.walking import natural, walk
from texad.errors import DataError, check_choice, check_range, printable
from texad.io.atomic import filling
from texad.io.images import FORMATS, check_image, read_mask

KINDS = ("folders", "csv", "coco", "yolo")
KIND_OF = {".csv": "csv", ".tsv": "csv", ".json": "coco", ".yaml": "yolo", ".yml": "yolo"}
ORIENTATION = 0x0112  # the EXIF tag
SIDEWAYS = (5, 6, 7, 8)  # its values where width and height change places
COMBINED = "combined"  # as MVTec AD calls images with several kinds of defect
MOST_NOTES = 5  # of one sort


@dataclass(frozen=True)
class Imported:
    """What an import made.

    Attributes
    ----------
    root : Path
        The category's folder, absolute.
    kind : str
        Kind of the source, one of KINDS.
    n_train, n_good : int
        Number of good images to learn from, and to test with.
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
        labels = ", ".join(self.good_labels)
        good = f"labelled {labels}" if labels else "without annotation"
        lines = [
            f"{self.root}: imported as {self.kind}",
            f"  train/good      {self.n_train:6d} images to learn from ({good})",
            f"  test/good       {self.n_good:6d} images",
            *(
                f"  test/{name:<10} {count:6d} images, {self.masks[name]} with a mask"
                for name, count in self.defects.items()
            ),
            *(f"  note: {note}" for note in self.notes),
        ]
        of_dataset = ["--dataset", str(self.root.parent), "--category", self.root.name]
        fit = ["texad", "fit", str(self.root), "--out", f"{self.root.name}.safetensors"]
        return "\n".join(
            [
                *map(printable, lines),
                f"next: {shlex.join(['texad', 'run', *of_dataset])}",
                f"or:   {shlex.join(fit)}",
            ]
        )


@dataclass(frozen=True)
class _Entry:
    """All that is said of one image, and its height and width."""

    path: Path
    name: str  # in the category, without its ending
    defect: str
    marks: list[Mark]
    size: tuple[int, int] = (0, 0)


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
        The category's folder, DATASET/CATEGORY. It must not exist, and appears only when it is
        complete.
    kind : {"folders", "csv", "coco", "yolo"} or None
        See `folders.read_folders`, `table.read_csv`, `coco.read_coco` and `yolo.read_yolo`; None:
        guessed.
    good : sequence of str
        Which folders, labels or categories are good; none: those called good, ok, normal and the
        like, and in a CSV also 0, false and no.
    test_fraction : float, default 0.2
        Fraction of the good images that is for testing, at least 0 and below 1. If it is not 0, at
        least one is.
    seed : int, default 0
        Decides which these are.
    link : bool, default False
        Link to the images instead of copying them.
    image_folder : str, Path or None
        Where the paths in a CSV or JSON start; None: around the file.
    path_column, label_column, mask_column : str or None
        Columns of a CSV; None: guessed.
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

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for i in range(5):
    ...     for label in ("ok", "scratch"):
    ...         (folder / "photos" / label).mkdir(parents=True, exist_ok=True)
    ...         Image.new("RGB", (64, 64)).save(folder / "photos" / label / f"{i}.png")
    >>> made = import_category(folder / "photos", folder / "data" / "steel")
    >>> made.n_train, made.n_good, dict(made.defects)
    (4, 1, {'scratch': 5})
    """
    check_range(
        "the test fraction",
        test_fraction,
        at_least=0,
        below=1,
        hint="0.2 keeps one good image in five for testing",
        error=DataError,
    )
    origin, root = _source(source, kind), _target(target)
    if root.is_relative_to(origin):
        raise DataError(
            f"{root} would be within {origin}, and imported the next time: choose another place"
        )
    kind = kind or guess(origin)
    labels = Labels(good, GOOD_CELLS if kind == "csv" else GOOD)
    marks = _marks(origin, kind, labels, image_folder, (path_column, label_column, mask_column))
    for unused in (each for each in good if not any(map(Labels([each]).is_good, labels.good))):
        raise DataError(
            f"nothing is labelled {unused!r}, which was named as good: the labels are "
            f"{labels.listed()}"
        )
    readable, unreadable = screen(_merged(marks), lambda each: check_image(each.path), progress)
    notes = labels.notes + _first(
        [f"{entry.path} ({reason})" for entry, reason in unreadable],
        "left out, since it cannot be read:",
    )
    entries = [replace(entry, size=size) for entry, size in readable]
    good_ones = [entry for entry in entries if entry.defect == "good"]
    defective = [entry for entry in entries if entry.defect != "good"]
    if len(good_ones) < 2:
        raise DataError(
            f"too few good images ({len(good_ones)}): at least 2 are needed, to learn from and to "
            f"test with; the labels are {labels.listed()}: say which of them are good by --good "
            "LABEL, or add images"
        )
    train, test = splitting.split(len(good_ones), test_fraction, np.random.default_rng(seed))
    if not len(test) and not defective:
        raise DataError(
            "no image would be left to test with, since none is defective: let the test fraction "
            "be more than 0"
        )
    masks: Counter[str] = Counter()
    empty: list[str] = []
    parts = [
        *(("train", good_ones[i]) for i in train),
        *(("test", good_ones[i]) for i in test),
        *(("test", entry) for entry in defective),
    ]
    with filling(root) as folder:
        for part, entry in tqdm(parts, "writing", unit="image", disable=not progress):
            file = folder / part / entry.defect / (entry.name + entry.path.suffix)
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
    notes += _first(empty, "left out, since it marks nothing of the image:")
    defects = Counter(sorted(entry.defect for entry in defective))
    if n_combined := sum(len({mark.defect for mark in entry.marks}) > 1 for entry in defective):
        notes.append(
            f"{n_combined} images have several kinds of defect: they are in test/{COMBINED}"
        )
    if not defective:
        notes.append(
            "no defective image: a detector can be fit, but nothing here tells which defects it "
            "finds"
        )
    return Imported(root, kind, len(train), len(test), defects, masks, sorted(labels.good), notes)


def guess(source: Path) -> str:
    """Guess which of KINDS a source is.

    Raises
    ------
    DataError
        A ValueError: it is a file of another kind.
    """
    if source.is_file():
        if (suffix := source.suffix.lower()) not in KIND_OF:
            raise DataError(
                f"{source} is neither a folder nor a .csv, .json or .yaml: name one of those, or "
                "say what it is by --kind"
            )
        return KIND_OF[suffix]
    if coco_files(source):
        return "coco"
    if len(tables_of(source)) == 1 and not any(
        Labels().is_good(name) for _, below, _ in walk(source) for name in below
    ):
        return "csv"
    if class_file(source) or any(label_file(source, image) for image in images(source, Labels())):
        return "yolo"
    return "folders"


# -- what is said of the images --------------------------------------------------------------------


def _absolute(path: str | Path) -> Path:
    return Path(os.path.abspath(Path(path).expanduser()))


def _source(source: str | Path, kind: str | None) -> Path:
    if kind is not None:
        check_choice("kind", kind, KINDS, error=DataError)
    path = _absolute(source)
    if not str(source) or not path.exists():
        raise FileNotFoundError(
            f"there is no {str(source)!r} to import: name a folder, or the .csv, .json or .yaml "
            "that speaks of the images"
        )
    parts = {folder.name for folder in path.glob("[!.]*/") if folder.is_dir()}
    if (
        kind is None
        and {"train", "test"} <= parts <= {"train", "test", "ground_truth"}
        and {file.name for file in (path / "train").glob("[!.]*")} == {"good"}
    ):
        raise DataError(
            f"{path} is laid out as MVTec AD already: use it as it is, with --dataset "
            f"{path.parent} --category {path.name}, or split it anew by --kind folders"
        )
    return path


def _target(target: str | Path) -> Path:
    path = _absolute(target)
    if os.path.lexists(path):
        raise FileExistsError(
            f"{path} exists, and nothing is overwritten: name another category, or remove it"
        )
    if path.name == "all" or path.name != clean(path.name):
        raise DataError(
            f"a category cannot be called {path.name!r}: choose another name for --to "
            "DATASET/CATEGORY"
        )
    if (path.parent / "train" / "good").is_dir():
        raise DataError(
            f"{path.parent} is itself a category: name a folder of categories, as in --to "
            "DATASET/CATEGORY"
        )
    return path


def _marks(
    source: Path,
    kind: str,
    labels: Labels,
    image_folder: str | Path | None,
    columns: tuple[str | None, ...],
) -> list[Mark]:
    if image_folder and kind in ("folders", "yolo") or any(columns) and kind != "csv":
        raise DataError(
            "--images is for csv and coco, --path-column, --label-column and --mask-column are for "
            f"csv, not for {kind}: leave them out, or say --kind csv"
        )
    folder = _absolute(image_folder) if image_folder else None
    readers: dict[str, Callable[[], list[Mark]]] = {
        "folders": lambda: read_folders(source, labels),
        "csv": lambda: read_csv(source, labels, folder, *columns),
        "coco": lambda: read_coco(source, labels, folder),
        "yolo": lambda: read_yolo(source, labels),
    }
    return readers[kind]()


def _merged(marks: Sequence[Mark]) -> list[_Entry]:
    """Gather what is said of each image, in natural order of the images."""
    of_image: dict[Path, list[Mark]] = {}
    for mark in marks:
        of_image.setdefault(mark.path.resolve(), []).append(mark)
    entries: list[_Entry] = []
    taken: set[tuple[str, str]] = set()
    for said in sorted(of_image.values(), key=lambda said: natural(str(said[0].path))):
        kinds = {mark.defect: mark for mark in reversed(said)}
        good = kinds.pop("good", None)
        if good and kinds:
            other = next(iter(kinds.values()))
            raise DataError(
                f"{good.path} is good by {good.where}, but {other.defect} by {other.where}: remove "
                "one of the two"
            )
        defect = COMBINED if len(kinds) > 1 else next(iter(kinds), "good")
        entries.append(_Entry(said[0].path, _name(said[0].path, defect, taken), defect, said))
    return entries


def _name(path: Path, defect: str, taken: set[tuple[str, str]]) -> str:
    """Choose a name that no other image of the defect has.

    It is the image's own if possible, else its folders go before it, one after the other, and else
    a number after all of them.
    """
    parts = path.with_suffix("").parts
    names = [clean("_".join(parts[-n:])) for n in range(1, len(parts) + 1)]
    for name in chain(names, (f"{names[-1]}_{i}" for i in count(2))):
        if name.casefold().endswith("_mask"):  # so is the mask of another one called
            name = f"{name}_image"
        if (key := (defect.casefold(), name.casefold())) not in taken:
            break
    taken.add(key)
    return name


def _first(reasons: Sequence[str], what: str) -> list[str]:
    more = [f"{what} {len(reasons) - MOST_NOTES} more"] if len(reasons) > MOST_NOTES else []
    return [f"{what} {reason}" for reason in reasons[:MOST_NOTES]] + more


# -- what is written -------------------------------------------------------------------------------


def _mask(entry: _Entry, empty: list[str]) -> np.ndarray | None:
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
        mask = read_mask(mark.shapes) if isinstance(mark.shapes, Path) else whole
        frame = mark.frame or mask.shape[::-1]
        if frame not in (stored, shown):
            raise DataError(
                f"{mark.where} is for an image of {frame[0]} x {frame[1]} pixels, but {entry.path} "
                f"has {shown[0]} x {shown[1]}: take that which it was made for"
            )
        if not isinstance(mark.shapes, Path):
            mask = draw(mark.shapes, *frame)
        if not mask.any():
            empty.append(str(mark.shapes) if isinstance(mark.shapes, Path) else mark.where)
        whole |= mask if frame == shown else _upright(mask, orientation)
    return whole if whole.any() else None


def _upright(mask: np.ndarray, orientation: int) -> np.ndarray:
    image = Image.fromarray(mask.astype(np.uint8))
    image.getexif()[ORIENTATION] = orientation
    return np.asarray(ImageOps.exif_transpose(image)) > 0
