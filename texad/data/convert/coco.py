"""Labels in COCO's JSON: polygons, run lengths or boxes.

https://cocodataset.org/#format-data.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from texad.data.convert.marks import Labels, Mark, find
from texad.data.convert.outlines import Polygon, Runs, box, uncompressed
from texad.errors import DataError

SCHEMA = Draft202012Validator(json.loads(Path(__file__).with_name("coco.json").read_text()))


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
    return [
        file
        for file in sorted([*folder.glob("[!.]*.json"), *folder.glob("*/[!.]*.json")])
        if _looks_like_coco(file)
    ]


def _looks_like_coco(file: Path) -> bool:
    try:
        content = _json(file)
    except (DataError, OSError):
        return False
    return isinstance(content, dict) and {"images", "annotations"} <= content.keys()


def _json(file: Path) -> Any:
    try:
        # NaN and the like are read as text, which the schema refuses.
        return json.loads(file.read_text(encoding="utf-8-sig"), parse_constant=str)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is no JSON ({error}): export it again") from None


def _marks(file: Path, labels: Labels, folder: Path | None) -> Iterator[Mark]:
    content = _json(file)
    if error := best_match(SCHEMA.iter_errors(content)):
        raise DataError(  # the end of the message says what is wrong, the beginning quotes the file
            f"{file}, {error.json_path.removeprefix('$.')} is damaged ({error.message[-200:]}): "
            "correct it, or export it again"
        )
    roots = (
        [folder]
        if folder
        else [root / name for root in (file.parent, file.parent.parent) for name in ("", "images")]
    )
    images, categories = (_by_id(file, content, key) for key in ("images", "categories"))
    notes: dict[Any, list[tuple[str, dict[str, Any]]]] = {number: [] for number in images}
    for i, note in enumerate(content["annotations"]):
        where = f"{file}, annotations[{i}]"
        for key, known in (("image_id", images), ("category_id", categories)):
            if note[key] not in known:
                raise DataError(
                    f"{where}: {key} {note[key]!r} is not listed in the file: correct or remove "
                    "the annotation"
                )
        notes[note["image_id"]].append((where, note))
    for number, (at, entry) in images.items():
        path = find(entry["file_name"], roots, at)
        size = (
            (int(entry["width"]), int(entry["height"]))
            if {"width", "height"} <= entry.keys()
            else None
        )
        said = [
            (labels.defect(categories[note["category_id"]][1]["name"]), where, note)
            for where, note in notes[number]
        ]
        yield from [_mark(path, *each, size) for each in said if each[0] != "good"] or [
            Mark(path, "good", at)
        ]


def _by_id(
    file: Path, content: dict[str, Any], key: str
) -> dict[int | str, tuple[str, dict[str, Any]]]:
    """Where each entry of a list is, and what it says."""
    found: dict[int | str, tuple[str, dict[str, Any]]] = {}
    for i, entry in enumerate(content[key]):
        at = f"{file}, {key}[{i}]"
        if (number := entry["id"]) in found:
            raise DataError(
                f"{at} has the id {number!r}, and so has {found[number][0]}: give each its own"
            )
        found[number] = at, entry
    return found


def _mark(
    path: Path, defect: str, where: str, note: dict[str, Any], size: tuple[int, int] | None
) -> Mark:
    outline = note.get("segmentation")
    try:
        if isinstance(outline, dict):
            runs = _runs(outline)
            return Mark(path, defect, where, (runs,), (runs.width, runs.height))
        polygons = [Polygon(np.array(each, np.float64).reshape(-1, 2)) for each in outline or []]
    except ValueError as error:
        raise DataError(f"{where}.segmentation is damaged ({error}): export it again") from None
    return Mark(path, defect, where, tuple(polygons or [box(*note["bbox"])]), size)


def _runs(outline: dict[str, Any]) -> Runs:
    counts, (height, width) = outline["counts"], map(int, outline["size"])
    counts = uncompressed(counts) if isinstance(counts, str) else np.array(counts, np.int64)
    if (counts < 0).any() or counts.sum() != height * width:
        raise ValueError(f"its run lengths are not those of an image of {width} x {height} pixels")
    return Runs(counts, height, width)
