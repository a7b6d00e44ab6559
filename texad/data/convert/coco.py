"""Labels in COCO's JSON: polygons, run lengths or boxes.

https://cocodataset.org/#format-data.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from texad.data.convert.marks import Mark
from texad.data.convert.outlines import Polygon, Runs, box, uncompressed
from texad.data.convert.source import Source, file_name, frame_of, reading
from texad.data.names import split_of
from texad.errors import DataError

SCHEMA = Draft202012Validator(json.loads(Path(__file__).with_name("coco.json").read_text()))


def read_coco(source: Source) -> list[Mark]:
    """List the marks of COCO's JSON.

    An image without annotation is good, and so is one with annotations of good categories only. The
    images of `instances_<subset>.json` are those of a folder of the subset's name, if there is one.

    Parameters
    ----------
    source : Source
        The file, or a folder that holds one or more of them, itself or in its sub-folders.

    Raises
    ------
    DataError
        A ValueError that names the entry.
    """
    marks: list[Mark] = []
    file_of: dict[Path, Path] = {}
    twice: list[str] = []
    for file, content in source.documents("coco"):
        mine = list(_marks(file, content, source))
        for path in dict.fromkeys(mark.path.resolve() for mark in mine):
            if (other := file_of.setdefault(path, file)) != file:
                twice.append(f"{path.name} ({other.name} and {file.name})")
        marks += mine
    if twice:
        source.labels.notes.append(
            f"{len(twice)} images are in two files, whose annotations are united: "
            f"{', '.join(twice[:2])}"
        )
    return marks + source.others(marks, are_good=False)


def _marks(file: Path, content: Any, source: Source) -> Iterator[Mark]:
    if error := best_match(SCHEMA.iter_errors(content)):
        raise DataError(  # the end of the message says what is wrong, the beginning quotes the file
            f"{file}, {error.json_path.removeprefix('$.')} is damaged ({error.message[-200:]}): "
            "correct it, or export it again"
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
    split = split_of([*reversed(file.stem.split("_")), file.parent.name])
    for number, (at, entry) in images.items():
        path = source.find(file_name(entry["file_name"]), at, source.roots(file))
        size = frame_of(entry.get("width"), entry.get("height"))
        said = [
            _mark(
                path,
                source.labels.defect(categories[note["category_id"]][1]["name"]),
                where,
                note,
                size,
            )
            for where, note in notes[number]
        ]
        yield from (replace(mark, split=split) for mark in source.judged(path, at, said))


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
    with reading(f"{where}.segmentation"):
        if isinstance(outline, dict):
            counts, (height, width) = outline["counts"], map(int, outline["size"])
            counts = uncompressed(counts) if isinstance(counts, str) else np.array(counts, np.int64)
            return Mark(path, defect, where, (Runs(counts, height, width),), (width, height))
        shapes = [Polygon(np.array(each, np.float64).reshape(-1, 2)) for each in outline or []]
    if "bbox" in note and all(shape.fault() for shape in shapes):
        # CVAT turns a box by an attribute, clockwise as seen.
        turn = (note.get("attributes") or {}).get("rotation") or 0
        shapes.append(box(*note["bbox"], degrees=turn if isinstance(turn, int | float) else 0))
    return Mark(path, defect, where, tuple(shapes), size)
