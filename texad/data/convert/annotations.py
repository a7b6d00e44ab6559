"""Defects as annotation tools write them: COCO's JSON, and YOLO's text files.

Many tools export one of the two. Both readers list `Mark`s, as those of `labels` do.

COCO: https://cocodataset.org/#format-data. YOLO: https://docs.ultralytics.com/datasets/detect/ and https://docs.ultralytics.com/datasets/segment/.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from texad.data.convert.labels import Labels, Mark, find, images
from texad.data.convert.outlines import Polygon, Runs, box, uncompressed
from texad.errors import DataError

CLASS_FILES = ("data.yaml", "data.yml", "dataset.yaml", "classes.txt", "obj.names")
FAR = 1e9  # no coordinate is out there
LEEWAY = 0.1  # by which a defect may lead out of its image, as a share of it: tools round, and people draw over the border


# -- COCO ------------------------------------------------------------------------------------------


def read_coco(source: Path, labels: Labels, folder: Path | None = None) -> list[Mark]:
    """COCO's JSON: polygons, run lengths or boxes. An image without annotation is good, and so is one with annotations of good categories only.

    Parameters
    ----------
    source : Path
        The file, or a folder that holds one or more of them, itself or in its sub-folders.
    labels : Labels
        Of the names of categories.
    folder : Path or None
        Where the names of images start; None: where the JSON is, the folder around, or a folder `images` in one of the two.

    Raises
    ------
    DataError
        A ValueError that names the entry.
    """
    files = [source] if source.is_file() else coco_files(source)
    if not files:
        raise DataError(
            f"{source} holds no JSON with images and annotations, and neither do its sub-folders: name the file"
        )
    return [mark for file in files for mark in _coco(file, labels, folder)]


def coco_files(folder: Path) -> list[Path]:
    """The files of a folder and its sub-folders that look like COCO's."""
    found = sorted(
        file
        for pattern in ("*.json", "*/*.json")
        for file in folder.glob(pattern)
        if not file.name.startswith(".")
    )
    return [file for file in found if _looks_like_coco(file)]


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
            f"{file} is not as COCO has it: it holds a {type(content).__name__} instead of an object; export it again"
        )
    return content


def _coco(file: Path, labels: Labels, folder: Path | None) -> Iterator[Mark]:
    content = _json(file)
    roots = (
        [folder]
        if folder
        else [
            root / below for root in (file.parent, file.parent.parent) for below in ("", "images")
        ]
    )
    categories = {
        number: _get(entry, "name", at, str)
        for number, (at, entry) in _by_id(file, content, "categories").items()
    }
    listed = _by_id(file, content, "images")
    notes: dict[Any, list[tuple[str, dict[str, Any]]]] = {}
    for at, note in _entries(file, content, "annotations"):
        for key, known in (("image_id", listed), ("category_id", categories)):
            if _get(note, key, at) not in known:
                raise DataError(
                    f"{at}: {key} {note[key]!r} is not listed in the file: mend or remove the annotation"
                )
        notes.setdefault(note["image_id"], []).append((at, note))
    for number, (at, entry) in listed.items():
        path = find(_get(entry, "file_name", at, str), roots, at)
        size = (
            (_get(entry, "width", at, int), _get(entry, "height", at, int))
            if {"width", "height"} <= entry.keys()
            else None
        )
        marks = [
            (where, labels.defect(categories[note["category_id"]]), note)
            for where, note in notes.get(number, [])
        ]
        marks = [(where, defect, note) for where, defect, note in marks if defect != "good"]
        if not marks:
            yield Mark(path, "good", at)
        for where, defect, note in marks:
            shapes = _coco_shapes(note, where)
            of_runs = next(
                ((shape.width, shape.height) for shape in shapes if isinstance(shape, Runs)), None
            )
            yield Mark(path, defect, where, shapes, size or of_runs)


def _coco_shapes(note: dict[str, Any], where: str) -> tuple[Polygon | Runs, ...]:
    outline = note.get("segmentation")
    if isinstance(outline, dict):
        return (_runs(outline, where),)
    if outline:
        if not isinstance(outline, list):
            raise DataError(
                f"{where}: segmentation is neither a list of polygons nor run lengths: export it again"
            )
        polygons = outline if isinstance(outline[0], list) else [outline]
        points = [
            _numbers(polygon, f"{where}: a polygon of the segmentation") for polygon in polygons
        ]
        if any(len(each) < 6 or len(each) % 2 for each in points):
            raise DataError(
                f"{where}: a polygon of the segmentation needs x and y of three corners or more: mend or remove the annotation"
            )
        return tuple(Polygon(each.reshape(-1, 2)) for each in points)
    if note.get("bbox"):
        numbers = _numbers(note["bbox"], f"{where}: bbox")
        if len(numbers) != 4 or (numbers[2:] < 0).any():
            raise DataError(
                f"{where}: bbox is not x, y, width and height: mend or remove the annotation"
            )
        return (box(*numbers.tolist()),)
    raise DataError(f"{where} has neither segmentation nor bbox: mend or remove it")


def _runs(outline: dict[str, Any], where: str) -> Runs:
    size, counts = outline.get("size"), outline.get("counts")
    try:
        counts = (
            uncompressed(counts)
            if isinstance(counts, str)
            else _numbers(counts, "counts").astype(np.int64)
        )
        height, width = (int(side) for side in _numbers(size, "size").astype(np.int64))
    except ValueError as error:
        raise DataError(
            f"{where}: the run lengths are damaged ({error}): export it again"
        ) from None
    if (counts < 0).any() or counts.sum() != height * width:
        raise DataError(
            f"{where}: the run lengths are not those of an image of {width} x {height} pixels: export it again"
        )
    return Runs(counts, height, width)


def _entries(file: Path, content: dict[str, Any], key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each entry of a list is, and what it says."""
    entries = content.get(key)
    if not isinstance(entries, list):
        raise DataError(f"{file} is not as COCO has it: it has no list {key}; export it again")
    for i, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise DataError(
                f"{file}, {key}[{i}] is a {type(entry).__name__} instead of an object: mend or remove it"
            )
        yield f"{file}, {key}[{i}]", entry


def _by_id(
    file: Path, content: dict[str, Any], key: str
) -> dict[int | str, tuple[str, dict[str, Any]]]:
    found: dict[int | str, tuple[str, dict[str, Any]]] = {}
    for at, entry in _entries(file, content, key):
        if (number := _get(entry, "id", at)) in found:
            raise DataError(
                f"{at} has the id {number!r}, and so has {found[number][0]}: give each its own"
            )
        found[number] = at, entry
    return found


def _get(
    entry: dict[str, Any], key: str, where: str, kind: type | tuple[type, ...] = (int, str)
) -> Any:
    value = entry.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise DataError(
            f"{where} has no {key}"
            if value is None
            else f"{where}: {key} is {value!r}, of the wrong kind: mend or remove it"
        )
    return value


def _numbers(values: Any, where: str) -> np.ndarray:
    """Finite numbers as float64; DataError for anything else."""
    if not isinstance(values, list) or not all(
        isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= FAR
        for value in values
    ):
        raise DataError(f"{where} is not a list of numbers to compute with")
    return np.array(values, dtype=np.float64)


# -- YOLO ------------------------------------------------------------------------------------------


def read_yolo(source: Path, labels: Labels) -> list[Mark]:
    """YOLO's text files: on each line a class, and a box or a polygon in shares of the image. An image without such a file, or with an empty one, is good.

    The text of `images/a.png` is `labels/a.txt`, or `a.txt` beside the image. The names of classes are in `data.yaml` or `classes.txt`.

    Parameters
    ----------
    source : Path
        The folder, or the `data.yaml` in it.
    labels : Labels
        Of the names of classes.

    Raises
    ------
    DataError
        A ValueError that names the line.
    """
    names_file, folder = class_file(source), source.parent if source.is_file() else source
    names = _class_names(names_file) if names_file else {}
    marks = []
    n_texts = 0
    for path in images(folder, labels):
        text = label_file(folder, path)
        n_texts += text is not None
        mine = (
            [_yolo_mark(path, text, number, line, names, labels) for number, line in _lines(text)]
            if text
            else []
        )
        marks += [mark for mark in mine if mark.defect != "good"] or [
            Mark(path, "good", str(text or path))
        ]
    if not n_texts:
        raise DataError(
            f"{folder}: no image has a text file beside it or in a folder labels: name the folder that holds images and labels"
        )
    if n_without := len({mark.path for mark in marks}) - n_texts:
        labels.notes.append(f"{n_without} images without a text file taken for good")
    return marks


def class_file(source: Path) -> Path | None:
    """The file with the names of classes, if there is one: `source` itself, in it, or in its folder of labels."""
    if source.is_file():
        return source
    return next(
        (
            file
            for name in CLASS_FILES
            for file in (source / name, source / "labels" / name)
            if file.is_file()
        ),
        None,
    )


def label_file(source: Path, image: Path) -> Path | None:
    """The text that belongs to an image, if there is one."""
    inner = image.relative_to(source).with_suffix(".txt")
    swapped = list(inner.parts)
    for i in reversed(range(len(swapped) - 1)):
        if swapped[i] == "images":
            swapped[i] = "labels"
            break
    files = (source.joinpath(*swapped), source / inner, source / "labels" / inner)
    return next((file for file in files if file.is_file() and file.name not in CLASS_FILES), None)


def _class_names(file: Path) -> dict[int, str]:
    try:
        text = file.read_text(encoding="utf-8-sig")
        if file.suffix.lower() not in (".yaml", ".yml"):
            return dict(enumerate(line.strip() for line in text.strip().splitlines()))
        content = yaml.safe_load(text)
        names = content["names"]
        return {
            int(number): str(name)
            for number, name in (names.items() if isinstance(names, dict) else enumerate(names))
        }
    except (yaml.YAMLError, ValueError, TypeError, KeyError, RecursionError) as error:
        reason = (
            (str(error).splitlines() or [""])[0]
            if isinstance(error, yaml.YAMLError)
            else "it has no list of names"
        )
        raise DataError(
            f"{file} does not say what the classes are called ({reason}): mend it, as in names: [scratch, dent]"
        ) from None


def _lines(text: Path) -> list[tuple[int, str]]:
    try:
        return [
            (i, line)
            for i, line in enumerate(text.read_text(encoding="utf-8-sig").splitlines(), 1)
            if line.strip()
        ]
    except UnicodeDecodeError:
        raise DataError(f"{text} is no text in UTF-8: export it again") from None


def _yolo_mark(
    path: Path, text: Path | None, number: int, line: str, names: dict[int, str], labels: Labels
) -> Mark:
    where, cells = f"{text}, line {number}", line.split()
    try:
        of_class, numbers = int(cells[0]), np.array([float(cell) for cell in cells[1:]])
    except ValueError:
        raise DataError(
            f"{where}: {line.strip()[:80]!r} is not a class and numbers: mend or remove it"
        ) from None
    if len(numbers) != 4 and (len(numbers) < 6 or len(numbers) % 2):
        raise DataError(
            f"{where}: {len(numbers)} numbers are neither the four of a box nor x and y of three corners or more: mend or remove it"
        )
    if of_class < 0 or (names and of_class not in names):
        raise DataError(
            f"{where}: class {of_class} has no name; the names are {', '.join(names.values())}: mend one of the two files"
        )
    defect = labels.defect(names.get(of_class, f"class_{of_class}"))
    if len(numbers) == 4:
        centre_x, centre_y, width, height = numbers.tolist()
        shape = box(centre_x - width / 2, centre_y - height / 2, width, height, relative=True)
    else:
        shape = Polygon(numbers.reshape(-1, 2), relative=True)
    if not all(
        math.isfinite(value) and -LEEWAY <= value <= 1 + LEEWAY for value in shape.points.ravel()
    ) or (len(numbers) == 4 and numbers.min() < 0):
        raise DataError(
            f"{where} leads out of the image: YOLO's numbers are shares of width and height, from 0 to 1, not pixels; export it again"
        )
    return Mark(path, defect, where, (shape,))
