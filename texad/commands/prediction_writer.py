"""Predictions as rows that are written one by one, into a CSV and a JSON lines file or to the standard output, and as pictures.

Each row is on its way as soon as it is known; what was written stays, whatever comes after.
"""

import csv
import io
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO

import numpy as np

from texad.commands import report
from texad.detector import Prediction
from texad.errors import ImageError, printable
from texad.figures.overlay import overlay
from texad.io import escape as names
from texad.io.atomic import replacing

COLUMNS = ("path", "score", "p_value", "decision", "seconds", "error")
HEATMAP_SIZE = 1024  # pixels of the longer side
Write = Callable[[Mapping[str, object]], None]


def row(result: Prediction) -> dict[str, object]:
    """A prediction as it is written; as many digits as a float32 has."""
    is_known = not result.error
    return {
        "path": result.path,
        "score": float(f"{result.score:.9g}") if is_known else None,
        "p_value": float(f"{result.p_value:.6g}") if is_known else None,
        "decision": ("anomalous" if result.anomalous else "normal") if is_known else "unreadable",
        "seconds": round(result.seconds, 4),
        "error": result.error,
    }


def writer(stack: ExitStack, folder: Path | None, form: str, heatmaps: bool) -> Write:
    """A function that writes a row wherever rows are wanted, so that it can be read at once.

    Parameters
    ----------
    stack : ExitStack
        Closes the files.
    folder : Path or None
        Where predictions.csv and predictions.jsonl go; None prints instead.
    form : {"csv", "jsonl"}
        Of what is printed.
    heatmaps : bool
        Add the column `heatmap`, the name of the picture.

    Raises
    ------
    ValueError
        If the files are there already.
    """
    columns = [*COLUMNS, "heatmap"] if heatmaps else list(COLUMNS)
    kinds: dict[str, Callable[[TextIO, Sequence[str]], Write]] = {"csv": _csv, "jsonl": _jsonl}
    if folder is None:
        if isinstance(
            sys.stdout, io.TextIOWrapper
        ):  # names of files need not be UTF-8; what a program reads always is, as in a file
            sys.stdout.reconfigure(
                encoding=None if sys.stdout.isatty() else "utf-8", errors="surrogateescape"
            )
        return kinds[form](sys.stdout, columns)
    files = {kind: folder / f"predictions.{kind}" for kind in kinds}
    if there := [file for file in files.values() if file.exists()]:
        raise ValueError(
            f"{there[0]} is there already, and would be lost: choose another --out, or move it away"
        )
    folder.mkdir(parents=True, exist_ok=True)
    writes = []
    for kind, file in files.items():
        opened = stack.enter_context(
            file.open("x", encoding="utf-8", errors="surrogateescape", newline="")
        )
        writes.append(kinds[kind](opened, columns))

    def write(row: Mapping[str, object]) -> None:
        for each in writes:
            each(row)

    return write


def _csv(stream: TextIO, columns: Sequence[str]) -> Write:
    table = csv.DictWriter(stream, columns, lineterminator="\n")
    is_terminal = stream.isatty()

    def cell(value: object) -> object:
        if not isinstance(value, str):
            return value
        return names.cell(printable(value) if is_terminal else value)

    def write(row: Mapping[str, object]) -> None:
        table.writerow({name: cell(value) for name, value in row.items()})
        stream.flush()

    table.writeheader()
    stream.flush()
    return write


def _jsonl(stream: TextIO, columns: Sequence[str]) -> Write:
    def write(row: Mapping[str, object]) -> None:
        stream.write(json.dumps(row, allow_nan=False) + "\n")  # ASCII, so harmless to a terminal
        stream.flush()

    return write


def heatmap(folder: Path, number: int, result: Prediction, heat: Sequence[float] | None) -> str:
    """Write an image covered by its heatmap.

    Parameters
    ----------
    folder : Path
    number : int
        Of the image, in the order of the predictions: no two pictures have one name, and none leads out of the folder.
    result : Prediction
    heat : (float, float) or None
        See `heatmaps.overlay`; without it, each image has a scale of its own.

    Returns
    -------
    str
        The file's name; empty if the image could not be read.
    """
    if result.anomaly_map is None:
        return ""
    heat = heat or (float(np.median(result.anomaly_map)), float(result.anomaly_map.max()))
    stem = re.sub(r"[^\w.-]+", "_", Path(result.path).stem)[:60]
    name = f"{number:07d}_{stem}.jpg"
    try:
        picture = overlay(report.small(result.path, HEATMAP_SIZE), result.anomaly_map, heat)
    except ImageError:  # it was there a moment ago
        return ""
    with replacing(folder / name) as temporary:
        picture.save(temporary, quality=85)
    return name
