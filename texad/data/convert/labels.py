"""What people say of their images: by the folders that they put them into, or in a table.

Each reader lists `Mark`s: one thing said of one image. `annotations` does so for COCO and YOLO; what is made of them, `importing` knows. No image is
opened here.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath

from texad.data.convert.outlines import Polygon, Runs
from texad.data.names import BAD, GOOD, MASKS, NEUTRAL, YES, clean, plain
from texad.data.walking import SUFFIXES, walk
from texad.errors import DataError

PATH_COLUMNS = "path file filename filepath image imagepath imagefile img imgpath imagename imgname name".split()
LABEL_COLUMNS = "label defect defecttype class classname category anomaly isanomaly isdefect isdefective anomalous target y".split()
MASK_COLUMNS = "mask maskpath maskfile groundtruth gt segmentation".split()


@dataclass(frozen=True)
class Mark:
    """One thing that is said of one image.

    Attributes
    ----------
    path : Path
        Of the image.
    defect : str
        "good", or the kind of defect: a name that a folder may have.
    where : str
        Where it is said.
    shapes : tuple of Polygon or Runs, or Path
        Where the defect is, all in all; a path is that of a mask.
    frame : (int, int) or None
        Width and height of the image as the source knows it; None if it does not say.
    """

    path: Path
    defect: str
    where: str
    shapes: tuple[Polygon | Runs, ...] | Path = ()
    frame: tuple[int, int] | None = None


@dataclass
class Labels:
    """Which labels are good, and what the others are called.

    Attributes
    ----------
    named : sequence of str
        Those that the user calls good, in upper or lower case; if there are none, `usual` holds.
    usual : frozenset of str
        As `plain` writes them.
    good, bad : Counter of str
        The labels that occurred, and how often.
    notes : list of str
        What the user should know of how the source was read.
    """

    named: Sequence[str] = ()
    usual: frozenset[str] = GOOD
    good: Counter[str] = field(default_factory=Counter)
    bad: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    _spelt: dict[str, str] = field(default_factory=dict)

    def is_good(self, label: str) -> bool:
        if self.named:
            return label.strip().casefold() in {name.strip().casefold() for name in self.named}
        return plain(label) in self.usual

    def defect(self, label: str) -> str:
        """`good`, or the label as a name for a folder. Labels that differ only in upper and lower case are one.

        Raises
        ------
        DataError
            The label is called good, but the user named others.
        """
        is_good = self.is_good(label)
        (self.good if is_good else self.bad)[label] += 1
        if is_good:
            return "good"
        name = clean(label)
        if name.casefold() == "good":
            raise DataError(
                f"label {label!r} is not among those named as good: name it, too, or call it something else"
            )
        return self._spelt.setdefault(name.casefold(), name)

    def listed(self) -> str:
        """The labels, for a message."""
        counts = (self.good + self.bad).most_common(20)
        return ", ".join(f"{label} ({count})" for label, count in counts) or "none"


def images(folder: Path, labels: Labels) -> list[Path]:
    """The images of a folder and those below it, in natural order; hidden ones are passed over, and links to folders not followed.

    Pictures of a format that is not read are noted in `labels`.
    """
    found: list[Path] = []
    others: Counter[str] = Counter()
    for _, _, files in walk(folder):
        for file in files:
            if (suffix := file.suffix.lower()) in SUFFIXES:
                found.append(file)
            elif suffix in (
                ".webp",
                ".gif",
                ".heic",
                ".avif",
                ".jp2",
                ".raw",
                ".dng",
                ".pgm",
                ".ppm",
                ".npy",
            ):
                others[suffix] += 1
    for suffix, count in others.items():
        labels.notes.append(f"{count} of {suffix} passed over: convert what is to be used to PNG")
    if not found:
        raise DataError(
            f"{folder} holds no image, and neither do its sub-folders ({', '.join(SUFFIXES)})"
        )
    return found


def find(name: str, roots: Iterable[Path], where: str, absolute: bool = False) -> Path:
    """The image that a table or an annotation means.

    Parameters
    ----------
    name : str
        A path, with slashes or backslashes, relative to one of `roots`.
    roots : iterable of Path
        Tried in turn.
    where : str
        Where it is said.
    absolute : bool, default False
        Is any other file of this machine allowed, too?

    Raises
    ------
    DataError
        There is no such file, it leads out of the roots, or its name is not that of an image.
    """
    name, roots = name.strip(), list(roots)
    windows = PureWindowsPath(name)
    if ".." in windows.parts or ((windows.drive or windows.root) and not absolute):
        raise DataError(
            f"{where}: {name!r} leads out of the folder of the images: write a path that starts in it"
        )
    if windows.suffix.lower() not in SUFFIXES:
        raise DataError(
            f"{where}: {name!r} is no image by its name ({', '.join(SUFFIXES)}): convert it to PNG, or remove the entry"
        )
    for file in (root / each for root in roots for each in (name, windows.as_posix())):
        if file.is_file():
            return file
    raise DataError(
        f"{where}: there is no file {name!r} in {' or '.join(map(str, roots))}: say where the images are by --images FOLDER"
    )


# -- folders ---------------------------------------------------------------------------------------


def read_folders(source: Path, labels: Labels) -> list[Mark]:
    """A folder for good images, and one for the others or for each kind of defect.

    Folders named train, test, images and the like may be around or in them. Masks are `<stem>_mask.*` beside the image, or they are in a folder
    `masks` or `ground_truth`, and there in a folder of the defect's name or not.

    Raises
    ------
    DataError
        A ValueError: folders contradict each other, or what is a mask of what is not clear.
    """
    files = images(source, labels)
    by_stem: dict[tuple[Path, str], Path] = {}
    for file in files:
        other = by_stem.setdefault((file.parent, file.stem.casefold()), file)
        if other is not file:
            raise DataError(
                f"{other} and {file.name} differ only in their endings: if one is the other's mask, put it into a folder {source / 'masks'}, or let its "
                "name end in _mask; else rename it"
            )
    marked: list[tuple[Path, str]] = []
    masks: dict[tuple[str, str], Path] = {}
    n_loose = 0
    for file in files:
        names = [
            name for name in file.relative_to(source).parent.parts if plain(name) not in NEUTRAL
        ]
        kinds = [name for name in names if plain(name) not in MASKS]
        stem = file.stem.casefold()
        of_image = stem.removesuffix("_mask")
        if len(kinds) < len(names) or of_image != stem and (file.parent, of_image) in by_stem:
            masks[kinds[-1].casefold() if kinds else "", of_image] = file
        elif kinds:
            marked.append((file, labels.defect(_kind(source, file, kinds, labels))))
        else:
            n_loose += 1
    if not marked:
        raise DataError(
            f"{source} has no folder that says what the images are: put good ones into {source / 'good'}, others into a folder for each kind of "
            f"defect; if all are good, import nothing, but texad fit {source}"
        )
    if n_loose:
        labels.notes.append(
            f"{n_loose} images passed over, which are in no folder that says what they are"
        )
    marks: list[Mark] = []
    owners: dict[Path, Path] = {}
    for file, defect in marked:
        folders = (file.parent.name, defect, "") if defect != "good" else ()
        mask = next(
            (
                masks[key]
                for key in ((name.casefold(), file.stem.casefold()) for name in folders)
                if key in masks
            ),
            None,
        )
        if mask and owners.setdefault(mask, file) != file:
            raise DataError(
                f"{mask} may be the mask of {file} or of {owners[mask]}: put it into a folder of the defect's name"
            )
        marks.append(Mark(file, defect, str(file), mask or ()))
    return marks


def _kind(source: Path, file: Path, kinds: Sequence[str], labels: Labels) -> str:
    """Of the folders that an image is in, the one that says what it is."""
    good = [name for name in kinds if labels.is_good(name)]
    if good and good[0] != kinds[0]:
        raise DataError(
            f"{file} would be good by its folder {good[0]}, but that is in the folder {kinds[0]}: import {source / kinds[0]} by itself if that is "
            "another surface, else rename one of the two"
        )
    return kinds[1] if not good and len(kinds) > 1 and plain(kinds[0]) in BAD else kinds[0]


# -- CSV -------------------------------------------------------------------------------------------


def read_csv(
    source: Path,
    labels: Labels,
    folder: Path | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    mask_column: str | None = None,
) -> list[Mark]:
    """A table with a row for each image, or for each defect of an image. The first row names the columns.

    Parameters
    ----------
    source : Path
        The table, or a folder that holds one. Between the cells are commas, semicolons, tabs or bars.
    labels : Labels
    folder : Path or None
        Where relative paths start; None: where the table is.
    path_column, label_column, mask_column : str or None
        Columns; None: those with a usual name. There need be none of masks.

    Raises
    ------
    DataError
        A ValueError that names the line.
    """
    table = source
    if source.is_dir():
        tables = [
            file
            for file in sorted(source.iterdir())
            if file.suffix.lower() in (".csv", ".tsv") and not file.name.startswith(".")
        ]
        if len(tables) != 1:
            raise DataError(
                f"{source} holds {len(tables)} tables (.csv, .tsv) instead of one: name the file"
            )
        table = tables[0]
    header, rows = _rows(table)
    path_at = _column(table, header, path_column, PATH_COLUMNS, "--path-column")
    label_at = _column(table, header, label_column, LABEL_COLUMNS, "--label-column")
    has_masks = mask_column is not None or any(plain(name) in MASK_COLUMNS for name in header)
    mask_at = (
        _column(table, header, mask_column, MASK_COLUMNS, "--mask-column") if has_masks else -1
    )
    bad = {plain(row[label_at]) for _, row in rows if not labels.is_good(row[label_at])}
    only_yes = len(bad) == 1 and bad <= YES  # then "1" is no name of a defect
    marks = []
    for where, row in rows:
        if not row[label_at].strip():
            raise DataError(
                f"{where} has no {header[label_at]}: say what the image is, or remove the line"
            )
        defect = labels.defect(row[label_at])
        defect = "defect" if only_yes and defect != "good" else defect
        mask, roots = (
            row[mask_at].strip() if has_masks and defect != "good" else "",
            [folder or table.parent],
        )
        path = find(row[path_at], roots, where, absolute=True)
        marks.append(
            Mark(path, defect, where, find(mask, roots, where, absolute=True) if mask else ())
        )
    return marks


def _rows(table: Path) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """The names of a table's columns, and where each other row is and what it holds: as many cells as there are columns."""
    try:
        text = table.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{table} is no text in UTF-8: save it as CSV UTF-8") from None
    separator = max(",;\t|", key=text.partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        numbered = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise DataError(f"{table}, line {reader.line_num} is damaged ({error}): mend it") from None
    if not numbered:
        raise DataError(
            f"{table} is empty: its first line is to name the columns, as in path,label"
        )
    header = [cell.strip() for cell in numbered[0][1]]
    for number, row in numbered[1:]:
        if len(row) != len(header):
            raise DataError(
                f"{table}, line {number} has {len(row)} cells, but the first line {len(header)}: mend it; a cell with {separator!r} in it needs quotes"
            )
    return header, [(f"{table}, line {number}", row) for number, row in numbered[1:]]


def _column(
    table: Path, header: list[str], wanted: str | None, usual: Sequence[str], option: str
) -> int:
    if wanted is None:
        names = [plain(name) for name in header]
        wanted = next((header[names.index(name)] for name in usual if name in names), None)
        if wanted is None:
            raise DataError(
                f"{table} has no column with a usual name such as {usual[0]}: choose {option} from its first line, {', '.join(header)}"
            )
    if header.count(wanted) != 1:
        raise DataError(
            f"{table} has {header.count(wanted)} columns {wanted!r}: choose {option} from its first line, {', '.join(header)}"
        )
    return header.index(wanted)
