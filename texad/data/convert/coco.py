"""Labels in COCO's JSON: polygons, run lengths or boxes.

https://cocodataset.org/#format-data.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from texad.data.convert.marks import Labels, Mark, find
from texad.data.convert.outlines import Polygon, Runs, box, uncompressed
from texad.errors import DataError

FAR = 1e9  # no coordinate is out there
CORRECT = "correct or remove the annotation"


def read_coco(source: Path, labels: Labels, folder: Path | None = None) -> list[Mark]:
    """List the marks of COCO's JSON.

    An image without annotation is good, and so is one with annotations of good categories only.

    Parameters
    ----------
    source : Path
        The file, or a folder that holds one or more of them, itself or in its sub-folders.
    labels : Labels
        Said of the names of categories.
    folder : Path or None
        Where the names of images start; None: where the JSON is, the folder around, or a folder
        `images` in one of the two.

    Raises
    ------
    DataError
        A ValueError that names the entry.
    """
    files = [source] if source.is_file() else coco_files(source)
    if not files:
        raise DataError(
            f"{source} holds no JSON with images and annotations, and neither do its sub-folders: "
            "name the file"
        )
    return [mark for file in files for mark in _marks(file, labels, folder)]


def coco_files(folder: Path) -> list[Path]:
    """List the files of a folder and its sub-folders that look like COCO's."""
    found = [*folder.glob("[!.]*.json"), *folder.glob("*/[!.]*.json")]
    return [file for file in sorted(found) if _looks_like_coco(file)]


def _looks_like_coco(file: Path) -> bool:
    try:
        return {"images", "annotations"} <= _json(file).keys()
    except (DataError, OSError):
        return False


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is no JSON ({error}): export it again") from None
    if not isinstance(content, dict):
        raise DataError(
            f"{file} is not as COCO has it: it holds a {type(content).__name__} instead of an "
            "object; export it again"
        )
    return content


def _marks(file: Path, labels: Labels, folder: Path | None) -> Iterator[Mark]:
    content = _json(file)
    around = (file.parent, file.parent.parent)
    roots = [folder] if folder else [root / name for root in around for name in ("", "images")]
    categories = {
        number: _get(entry, "name", at, str)
        for number, (at, entry) in _by_id(file, content, "categories").items()
    }
    images = _by_id(file, content, "images")
    notes: dict[Any, list[tuple[str, dict[str, Any]]]] = {number: [] for number in images}
    for at, note in _entries(file, content, "annotations"):
        for key, known in (("image_id", images), ("category_id", categories)):
            if _get(note, key, at) not in known:
                raise DataError(f"{at}: {key} {note[key]!r} is not listed in the file: {CORRECT}")
        notes[note["image_id"]].append((at, note))
    for number, (at, entry) in images.items():
        path = find(_get(entry, "file_name", at, str), roots, at)
        size = None
        if {"width", "height"} <= entry.keys():
            size = _get(entry, "width", at, int), _get(entry, "height", at, int)
        is_good = True
        for where, note in notes[number]:
            defect = labels.defect(categories[note["category_id"]])
            if defect != "good":
                is_good = False
                shapes = _shapes(note, where)
                runs = [(each.width, each.height) for each in shapes if isinstance(each, Runs)]
                yield Mark(path, defect, where, shapes, size or next(iter(runs), None))
        if is_good:
            yield Mark(path, "good", at)


def _shapes(note: dict[str, Any], where: str) -> tuple[Polygon | Runs, ...]:
    outline = note.get("segmentation")
    if isinstance(outline, dict):
        return (_runs(outline, where),)
    if outline:
        if not isinstance(outline, list):
            raise DataError(
                f"{where}: segmentation is neither a list of polygons nor run lengths: export it "
                "again"
            )
        polygons = outline if isinstance(outline[0], list) else [outline]
        what = f"{where}: a polygon of the segmentation"
        points = [_numbers(polygon, what) for polygon in polygons]
        if any(len(each) < 6 or len(each) % 2 for each in points):
            raise DataError(f"{what} needs x and y of three corners or more: {CORRECT}")
        return tuple(Polygon(each.reshape(-1, 2)) for each in points)
    if note.get("bbox"):
        numbers = _numbers(note["bbox"], f"{where}: bbox")
        if len(numbers) != 4 or (numbers[2:] < 0).any():
            raise DataError(f"{where}: bbox is not x, y, width and height: {CORRECT}")
        return (box(*numbers.tolist()),)
    raise DataError(f"{where} has neither segmentation nor bbox: correct or remove it")


def _runs(outline: dict[str, Any], where: str) -> Runs:
    counts = outline.get("counts")
    try:
        if isinstance(counts, str):
            counts = uncompressed(counts)
        else:
            counts = _numbers(counts, "counts").astype(np.int64)
        height, width = _numbers(outline.get("size"), "size").astype(np.int64).tolist()
    except ValueError as error:
        raise DataError(
            f"{where}: the run lengths are damaged ({error}): export it again"
        ) from None
    if (counts < 0).any() or counts.sum() != height * width:
        raise DataError(
            f"{where}: the run lengths are not those of an image of {width} x {height} pixels: "
            "export it again"
        )
    return Runs(counts, height, width)


def _entries(file: Path, content: dict[str, Any], key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield where each entry of a list is, and what it says."""
    entries = content.get(key)
    if not isinstance(entries, list):
        raise DataError(f"{file} is not as COCO has it: it has no list {key}; export it again")
    for i, entry in enumerate(entries):
        at = f"{file}, {key}[{i}]"
        if not isinstance(entry, dict):
            raise DataError(
                f"{at} is a {type(entry).__name__} instead of an object: correct or remove it"
            )
        yield at, entry


def _by_id(
    file: Path, content: dict[str, Any], key: str
) -> dict[int | str, tuple[str, dict[str, Any]]]:
    found: dict[int | str, tuple[str, dict[str, Any]]] = {}
    for at, entry in _entries(file, content, key):
        number = _get(entry, "id", at)
        if number in found:
            raise DataError(
                f"{at} has the id {number!r}, and so has {found[number][0]}: give each its own"
            )
        found[number] = at, entry
    return found


def _get(
    entry: dict[str, Any], key: str, where: str, kind: type | tuple[type, ...] = (int, str)
) -> Any:
    value = entry.get(key)
    if value is None:
        raise DataError(f"{where} has no {key}")
    if not isinstance(value, kind) or isinstance(value, bool):
        raise DataError(f"{where}: {key} is {value!r}, of the wrong kind: correct or remove it")
    return value


def _numbers(values: Any, where: str) -> np.ndarray:
    """Finite numbers as float64; DataError for anything else."""
    if not isinstance(values, list) or not all(
        isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= FAR
        for value in values
    ):
        raise DataError(f"{where} is not a list of numbers to compute with")
    return np.array(values, dtype=np.float64)
