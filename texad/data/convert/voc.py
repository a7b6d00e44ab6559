"""Labels in Pascal VOC's XML: a file for each image, with boxes.

http://host.robots.ox.ac.uk/pascal/VOC/.
"""

import math
from dataclasses import replace
from xml.etree.ElementTree import Element

import numpy as np

from texad.data.convert.marks import Mark
from texad.data.convert.outlines import Polygon, box
from texad.data.convert.source import Source, frame_of, numbers, read_text, reading
from texad.data.names import split_of


def read_voc(source: Source) -> list[Mark]:
    """List the marks of Pascal VOC's files; an image without one, or without an object, is good.

    Whole numbers name pixels from 1, as in VOC; others are coordinates.

    Raises
    ------
    DataError
        A ValueError that names the object.
    """
    marks: list[Mark] = []
    lists = [file for file in source.files if file.match("ImageSets/*/*.txt")]
    splits = {
        line.split()[0]: split_of([file.stem])
        for file in lists
        if split_of([file.stem])  # others are of a class, or of two parts
        for line in read_text(file).splitlines()
        if line.strip()
    }
    for file, root in source.documents("voc"):
        with reading(str(file)):
            path = source.find(
                root.findtext("filename") or file.stem, str(file), source.roots(file)
            )
            frame = frame_of(
                *(int(root.findtext(f"size/{side}") or 0) for side in ("width", "height"))
            )
            said = []
            for i, thing in enumerate(root.iter("object")):
                where = f"{file}, object[{i}]"
                with reading(where):
                    defect = source.labels.defect(thing.findtext("name") or "defect")
                    said.append(Mark(path, defect, where, (_shape(thing),), frame))
        marks += source.judged(path, str(file), said)
    marks += source.others(marks, are_good=source.path.is_dir())
    return [replace(mark, split=splits.get(mark.path.stem, "")) for mark in marks]


def _shape(thing: Element) -> Polygon:
    if (outline := thing.find("polygon")) is not None and len(outline):
        found = numbers(value.text for value in outline)  # x1, y1, x2, y2, ...
        return Polygon(np.array(found).reshape(-1, 2))
    if (turned := thing.find("robndbox")) is not None:  # of roLabelImg
        x, y, width, height, angle = numbers(
            turned.findtext(name) for name in ("cx", "cy", "w", "h", "angle")
        )
        return box(x - width / 2, y - height / 2, width, height, degrees=math.degrees(angle))
    texts = [thing.findtext(f"bndbox/{name}") for name in ("xmin", "ymin", "xmax", "ymax")]
    left, top, right, bottom = numbers(texts)
    first = 0 if any("." in str(text) for text in texts) else 1
    degrees = next(
        (
            float(each.findtext("value") or 0)
            for each in thing.iter("attribute")
            if each.findtext("name") == "rotation"
        ),
        0.0,
    )
    left, top = left - first, top - first
    return box(left, top, right - left, bottom - top, degrees=degrees)
