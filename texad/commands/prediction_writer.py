"""Predictions as rows, written one by one to CSV and JSON lines, and as pictures with heatmaps.

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

from texad.detector import AnomalyDetector, Prediction
from texad.errors import ImageError, printable
from texad.figures.overlay import overlay, thumbnail
from texad.io.atomic import replacing
from texad.io.escape import cell

COLUMNS = ("path", "score", "p_value", "decision", "seconds", "error")
HEATMAP_SIZE = 1024  # pixels of the longer side
Write = Callable[[Mapping[str, object]], None]


def row(result: Prediction) -> dict[str, object]:
    """Prediction as a row of `COLUMNS`; scores have as many digits as a float32.

    Examples
    --------
    >>> row(Prediction("a.png", 1.5, 0.25, anomalous=False, seconds=0.1))["decision"]
    'normal'
    """
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
    """Make the function that writes a row wherever rows are wanted, to be read at once.

    Parameters
    ----------
    stack : ExitStack
        Closes the files.
    folder : Path or None
        Where predictions.csv and predictions.jsonl go; None prints instead.
    form : {"csv", "jsonl"}
        Format of what is printed.
    heatmaps : bool
        Add the column `heatmap`, the name of the picture.

    Returns
    -------
    callable
        Takes a row.

    Raises
    ------
    ValueError
        The files are there already.
    """
    columns = [*COLUMNS, *["heatmap"] * heatmaps]
    if folder is None:
        # Names of files need not be UTF-8; what a program reads always is, as in a file.
        if isinstance(sys.stdout, io.TextIOWrapper):
            encoding = None if sys.stdout.isatty() else "utf-8"
            sys.stdout.reconfigure(encoding=encoding, errors="surrogateescape")
        streams = {form: sys.stdout}
    else:
        streams = _open(stack, folder)
    if "csv" in streams:
        _write_csv(streams["csv"], columns)

    def write(row: Mapping[str, object]) -> None:
        for kind, stream in streams.items():
            if kind == "csv":
                _write_csv(stream, [row[name] for name in columns])
            else:  # in ASCII: harmless to a terminal
                print(json.dumps(row, allow_nan=False), file=stream, flush=True)

    return write


def _open(stack: ExitStack, folder: Path) -> dict[str, TextIO]:
    files = {kind: folder / f"predictions.{kind}" for kind in ("csv", "jsonl")}
    if there := [file for file in files.values() if file.exists()]:
        raise ValueError(
            f"{there[0]} is there already, and would be lost: choose another --out, or move it away"
        )
    folder.mkdir(parents=True, exist_ok=True)
    return {
        kind: stack.enter_context(
            file.open("x", encoding="utf-8", errors="surrogateescape", newline="")
        )
        for kind, file in files.items()
    }


def _write_csv(stream: TextIO, values: Sequence[object]) -> None:
    """Write a line of CSV that no spreadsheet takes for formulas."""
    shown = printable if stream.isatty() else str
    csv.writer(stream, lineterminator="\n").writerow(
        cell(shown(value)) if isinstance(value, str) else value for value in values
    )
    stream.flush()


def heatmap(folder: Path, number: int, result: Prediction, detector: AnomalyDetector) -> str:
    """Write an image covered by its heatmap.

    Parameters
    ----------
    folder : Path
    number : int
        Place of the image in the order of the predictions: no two pictures have one name, and none
        leads out of the folder.
    result : Prediction
    detector : AnomalyDetector
        It made the prediction. Where its file is too old to know the scale of its heatmaps, each
        image has a scale of its own.

    Returns
    -------
    str
        The file's name; empty if the image could not be read.
    """
    if result.anomaly_map is None:
        return ""
    heat = detector.origin_.get("heat") or (
        float(np.nanmedian(result.anomaly_map)),
        float(np.nanmax(result.anomaly_map)),
    )
    stem = re.sub(r"[^\w.-]+", "_", Path(result.path).stem)[:60]
    name = f"{number:07d}_{stem}.jpg"
    try:
        picture = thumbnail(result.path, HEATMAP_SIZE, detector.sight_.white)
    except ImageError:  # it was there a moment ago
        return ""
    large = detector.enlarge(result.anomaly_map, (picture.height, picture.width))
    with replacing(folder / name) as temporary:
        overlay(picture, large, heat).save(temporary, quality=85)
    return name
