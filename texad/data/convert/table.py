"""Labels in a CSV: a row for each image, or for each defect of an image."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from texad.data.convert.marks import Labels, Mark, find, read_text
from texad.data.names import YES, plain
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


def read_csv(
    source: Path,
    labels: Labels,
    folder: Path | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    mask_column: str | None = None,
) -> list[Mark]:
    """List the marks of a table, whose first row names the columns.

    Parameters
    ----------
    source : Path
        The table, or a folder that holds one. Between the cells are commas, semicolons, tabs or
        bars.
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
    if source.is_dir():
        tables = tables_of(source)
        if len(tables) != 1:
            raise DataError(
                f"{source} holds {len(tables)} tables (.csv, .tsv) instead of one: name the file"
            )
        source = tables[0]
    header, marked = rows(source)
    path_at = _column(source, header, path_column, PATH_COLUMNS, "--path-column")
    label_at = _column(source, header, label_column, LABEL_COLUMNS, "--label-column")
    mask_at = (
        _column(source, header, mask_column, MASK_COLUMNS, "--mask-column")
        if mask_column is not None or any(plain(name) in MASK_COLUMNS for name in header)
        else None
    )
    bad = {plain(row[label_at]) for _, row in marked if not labels.is_good(row[label_at])}
    only_yes = len(bad) == 1 and bad <= YES  # then "1" is no name of a defect
    roots = [folder or source.parent]
    marks = []
    for where, row in marked:
        if not row[label_at].strip():
            raise DataError(
                f"{where} has no {header[label_at]}: say what the image is, or remove the line"
            )
        defect = labels.defect(row[label_at])
        path = find(row[path_at], roots, where, absolute=True)
        mask = row[mask_at].strip() if mask_at is not None and defect != "good" else ""
        shapes = find(mask, roots, where, absolute=True) if mask else ()
        marks.append(
            Mark(path, "defect" if only_yes and defect != "good" else defect, where, shapes)
        )
    return marks


def tables_of(folder: Path) -> list[Path]:
    """List the tables in a folder; hidden ones are passed over."""
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
