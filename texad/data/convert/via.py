"""Labels in the JSON of VIA, the VGG Image Annotator: a project, or exported annotations.

https://www.robots.ox.ac.uk/~vgg/software/via/, versions 1 and 2.
"""

import math
from typing import Any

import numpy as np

from texad.data.convert.marks import Mark
from texad.data.convert.outlines import Polygon, box, ellipse
from texad.data.convert.source import Source, file_name, numbers, reading


def read_via(source: Source) -> list[Mark]:
    """List the marks of VIA's files; an image without a region is good.

    The label of a region is the first of its attributes that has a value.

    Raises
    ------
    DataError
        A ValueError that names the region.
    """
    marks: list[Mark] = []
    for file, content in source.documents("via"):
        with reading(str(file)):
            entries = content.get("_via_img_metadata", content).items()
        for key, entry in entries:
            at = f"{file}, {key}"
            with reading(at):
                path = source.find(file_name(entry["filename"]), at, source.roots(file))
                regions = entry["regions"]  # in VIA 1 an object with numbers for keys
                said = []
                listed = regions.values() if isinstance(regions, dict) else regions
                for i, region in enumerate(listed):
                    where = f"{at}, regions[{i}]"
                    with reading(where):
                        defect = source.labels.defect(_label(region.get("region_attributes") or {}))
                        said.append(
                            Mark(path, defect, where, (_shape(region["shape_attributes"]),))
                        )
            marks += source.judged(path, at, said)
    return marks + source.others(marks, are_good=True)


def _label(attributes: dict[str, Any]) -> str:
    for value in attributes.values():
        if isinstance(value, dict):  # boxes to tick
            value = next((name for name, is_set in value.items() if is_set), "")
        if str(value).strip():
            return str(value)
    return "defect"


def _shape(shape: dict[str, Any]) -> Polygon:
    kind = shape["name"]
    if kind in ("polygon", "polyline"):
        xs, ys = numbers(shape["all_points_x"]), numbers(shape["all_points_y"])
        return Polygon(
            np.array([*zip(xs, ys, strict=True)]).reshape(-1, 2), False, kind[4:] == "line"
        )
    if kind == "rect":
        return box(*numbers(shape[name] for name in ("x", "y", "width", "height")))
    x, y = numbers([shape["cx"], shape["cy"]])
    if kind == "point":
        return Polygon(np.array([(x, y)]))
    radius_x, radius_y = numbers(shape.get("r", shape.get(name)) for name in ("rx", "ry"))
    return ellipse(x, y, radius_x, radius_y, degrees=math.degrees(float(shape.get("theta", 0))))
