"""Labels in YOLO's text files: on each line a class, and a box or a polygon.

https://docs.ultralytics.com/datasets/detect/ and https://docs.ultralytics.com/datasets/segment/.
"""

from pathlib import Path

import numpy as np
import yaml

from texad.data.convert.marks import Labels, Mark
from texad.data.convert.outlines import Polygon, box
from texad.data.convert.source import Source, read_text
from texad.errors import DataError

CLASS_FILES = ("data.yaml", "data.yml", "dataset.yaml", "classes.txt", "obj.names")


def read_yolo(source: Source) -> list[Mark]:
    """List the marks of YOLO's text files; an image without one, or with an empty one, is good.

    The text of `images/a.png` is `labels/a.txt`, or `a.txt` beside the image. Coordinates are
    fractions of the image's width and height. The names of classes are in `data.yaml` or
    `classes.txt`.

    Parameters
    ----------
    source : Source
        The folder, or the `data.yaml` in it.

    Raises
    ------
    DataError
        A ValueError that names the line.
    """
    names_file, folder = class_file(source.path), source.folder
    names = _class_names(names_file) if names_file else {}
    texts = {path: label_file(folder, path) for path in source.images}
    if not any(texts.values()):
        raise DataError(
            f"{folder}: no image has a text file beside it or in a folder labels: name the folder "
            "that holds images and labels"
        )
    marks: list[Mark] = []
    for path, text in texts.items():
        lines = enumerate(read_text(text).splitlines(), 1) if text else ()
        mine = [
            _mark(path, f"{text}, line {i}", line, names, source.labels)
            for i, line in lines
            if line.strip()
        ]
        marks += source.judged(path, str(text or path), mine)
    if n_without := list(texts.values()).count(None):
        source.labels.notes.append(f"{n_without} images without a text file taken for good")
    return marks


def class_file(source: Path) -> Path | None:
    """Find the file with the names of classes: `source` itself, in it, or in its folder labels."""
    if source.is_file():
        return source
    files = (source / folder / name for name in CLASS_FILES for folder in ("", "labels"))
    return next((file for file in files if file.is_file()), None)


def label_file(source: Path, image: Path) -> Path | None:
    """Find the text that belongs to an image, if there is one."""
    inner = image.relative_to(source).with_suffix(".txt")
    # The innermost folder images becomes labels.
    swapped = "/labels/".join(f"/{inner.as_posix()}".rsplit("/images/", 1)).lstrip("/")
    files = (source / swapped, source / inner, source / "labels" / inner)
    return next((file for file in files if file.is_file() and file.name not in CLASS_FILES), None)


def _class_names(file: Path) -> dict[int, str]:
    try:
        text = file.read_text(encoding="utf-8-sig")
        if file.suffix.lower() not in (".yaml", ".yml"):
            return dict(enumerate(line.strip() for line in text.strip().splitlines()))
        names = yaml.safe_load(text)["names"]
        numbered = names.items() if isinstance(names, dict) else enumerate(names)
        return {int(number): str(name) for number, name in numbered}
    except (yaml.YAMLError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise DataError(
            f"{file} does not say what the classes are called ({type(error).__name__}: "
            f"{' '.join(str(error).split())}): correct it, as in names: [scratch, dent]"
        ) from None


def _mark(path: Path, where: str, line: str, names: dict[int, str], labels: Labels) -> Mark:
    cells = line.split()
    try:
        of_class, numbers = int(cells[0]), np.array([float(cell) for cell in cells[1:]])
    except ValueError:
        raise DataError(
            f"{where}: {line[:80]!r} is not a class and numbers: correct or remove it"
        ) from None
    if len(numbers) % 2 or not len(numbers):
        raise DataError(
            f"{where}: {len(numbers)} numbers are neither the four of a box nor x and y of "
            "corners: correct or remove it"
        )
    if of_class < 0 or (names and of_class not in names):
        raise DataError(
            f"{where}: class {of_class} has no name; the names are {', '.join(names.values())}: "
            "correct one of the two files"
        )
    defect = labels.defect(names.get(of_class, f"class_{of_class}"))
    if len(numbers) == 4:
        centre_x, centre_y, width, height = numbers.tolist()
        width, height = (side if side >= 0 else np.nan for side in (width, height))
        shape = box(centre_x - width / 2, centre_y - height / 2, width, height, relative=True)
    else:
        shape = Polygon(numbers.reshape(-1, 2), relative=True)
    return Mark(path, defect, where, (shape,))
