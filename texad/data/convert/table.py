"""Labels in a CSV: a row for each image, or for each defect of an image."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from texad.data.convert.marks import Mark
from texad.data.convert.source import Source, read_text
from texad.data.names import YES, plain, split_of
from texad.errors import DataError

SUFFIXES = (".csv", ".tsv")
PATH_COLUMNS = (
    "path file filename filepath image imagepath imagefile img imgpath imagename imgname name"
).split()
LABEL_COLUMNS = (
    "label defect defecttype class classname category anomaly isanomaly isdefect isdefective "
    "anomalous target y"
).split()
MASK_COLUMNS = "mask maskpath maskfile groundtruth gt segmentation".split()
SPLIT_COLUMNS = "split subset partition set phase".split()
OBJECT_COLUMNS = "object objectname product".split()
GROUPS = "groups.csv"  # of a category, or of a folder of good images; found by itself
VISA = "split_csv/1cls.csv"  # the table of VisA that learns from good images


def read_csv(source: Source) -> list[Mark]:
    """List the marks of a table, whose first row names the columns.

    Columns of a usual name say to which part of a split a row belongs ("train", "test"), and which
    of several objects it shows.

    Parameters
    ----------
    source : Source
        The table, or a folder that holds one. Between the cells are commas, semicolons, tabs or
        bars. Relative paths start where the table is, or in the folder around.

    Raises
    ------
    DataError
        A ValueError that names the line.
    """
    labels, table = source.labels, source.path
    if table.is_dir():
        tables = tables_of(table)
        if len(tables) != 1:
            raise DataError(
                f"{table} holds {len(tables)} tables (.csv, .tsv) instead of one: name the file"
            )
        table = tables[0]
    header, marked = rows(table)
    path_column, label_column, mask_column = source.columns

    def optional(wanted: str | None, usual: Sequence[str], option: str) -> int | None:
        if wanted is None and not any(plain(name) in usual for name in header):
            return None
        return _column(table, header, wanted, usual, option)

    path_at = _column(table, header, path_column, PATH_COLUMNS, "--path-column")
    label_at = _column(table, header, label_column, LABEL_COLUMNS, "--label-column")
    mask_at = optional(mask_column, MASK_COLUMNS, "--mask-column")
    split_at = optional(None, SPLIT_COLUMNS, "one")
    object_at = optional(None, OBJECT_COLUMNS, "one")
    bad = {plain(row[label_at]) for _, row in marked if not labels.is_good(row[label_at])}
    only_yes = len(bad) == 1 and bad <= YES  # then "1" is no name of a defect
    roots = [source.image_folder] if source.image_folder else [table.parent, table.parent.parent]
    marks = []
    for where, row in marked:
        if not row[label_at].strip():
            raise DataError(
                f"{where} has no {header[label_at]}: say what the image is, or remove the line"
            )
        defect = labels.defect(row[label_at])
        defect = "defect" if only_yes and defect != "good" else defect
        path = source.find(row[path_at], where, roots, absolute=True)
        mask = row[mask_at].strip() if mask_at is not None and defect != "good" else ""
        shapes = (source.find(mask, where, roots, absolute=True, of_image=path),) if mask else ()
        split = split_of([row[split_at]]) if split_at is not None else ""
        category = row[object_at].strip() if object_at is not None else ""
        marks.append(Mark(path, defect, where, shapes, split=split, category=category))
    if split_at is not None and not any(mark.split for mark in marks):
        labels.notes.append(
            f"the column {header[split_at]} names neither train nor test, and is not kept"
        )
    return marks


def tables_of(folder: Path) -> list[Path]:
    """List the tables in a folder; hidden ones are passed over, and of VisA's one is taken."""
    if (folder / VISA).is_file():
        return [folder / VISA]
    return [file for file in sorted(folder.glob("[!.]*")) if file.suffix.lower() in SUFFIXES]


def rows(table: Path) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Read a table.

    Returns
    -------
    header : list of str
        Names of its columns.
    rows : list of (str, list of str)
        Where each other row is, and its cells, as many as there are columns.

    Raises
    ------
    DataError
        A ValueError that names the line.
    """
    text = read_text(table)
    separator = max(",;\t|", key=text.partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        header = [cell.strip() for cell in next(reader, [])]
        numbered = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise DataError(
            f"{table}, line {reader.line_num} is damaged ({error}): correct it"
        ) from None
    for number, row in numbered:
        if len(row) != len(header):
            raise DataError(
                f"{table}, line {number} has {len(row)} cells, but the first line {len(header)}: "
                f"correct it; a cell with {separator!r} in it needs quotes"
            )
    return header, [(f"{table}, line {number}", row) for number, row in numbered]


def _column(
    table: Path, header: list[str], wanted: str | None, usual: Sequence[str], option: str
) -> int:
    if wanted is None:
        wanted = next((name for each in usual for name in header if plain(name) == each), usual[0])
    if header.count(wanted) != 1:
        raise DataError(
            f"{table} has {header.count(wanted)} columns {wanted!r}: choose {option} from its "
            f"first line, {', '.join(header) or 'which is empty'}"
        )
    return header.index(wanted)
