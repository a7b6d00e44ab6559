"""Labels in LabelMe's JSON: a file for each image, with polygons, rectangles, circles and so on.

https://github.com/wkentaro/labelme.
"""

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from texad.data.convert.marks import Mark
from texad.data.convert.outlines import Polygon, Runs, box, ellipse, runs
from texad.data.convert.source import Source, frame_of, numbers, reading


def read_labelme(source: Source) -> list[Mark]:
    """List the marks of LabelMe's files; an image without one, or without shapes, is good.

    A flag that is set for an image is a label, too.

    Raises
    ------
    DataError
        A ValueError that names the shape.
    """
    marks: list[Mark] = []
    for file, content in source.documents("labelme"):
        with reading(str(file)):
            path = source.find(content["imagePath"], str(file), source.roots(file))
            frame = frame_of(content.get("imageWidth"), content.get("imageHeight"))
            said = []
            for i, shape in enumerate(content["shapes"]):
                where = f"{file}, shapes[{i}]"
                with reading(where):
                    defect = source.labels.defect(shape["label"])
                    said.append(Mark(path, defect, where, (_shape(shape),), frame))
            flags = [
                name for name, is_set in (content.get("flags") or {}).items() if is_set is True
            ]
            said += [Mark(path, source.labels.defect(name), f"{file}, flags") for name in flags]
        marks += source.judged(path, str(file), said)
    return marks + source.others(marks, are_good=source.path.is_dir())


def _shape(shape: dict[str, Any]) -> Polygon | Runs:
    points = np.array([numbers(point) for point in shape["points"]]).reshape(-1, 2)
    kind = shape.get("shape_type") or "polygon"
    if kind == "mask":
        with Image.open(io.BytesIO(base64.b64decode(shape["mask"])), formats=("PNG",)) as image:
            left, top = points[0].round().astype(int).tolist()
            return runs(np.asarray(image) > 0, left, top)
    if kind == "rectangle" and len(points) == 2:
        (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
        return box(left, top, right - left, bottom - top)
    if kind == "circle" and len(points) == 2:
        radius = float(np.hypot(*(points[1] - points[0])))
        x, y = points[0].tolist()
        return ellipse(x, y, radius, radius)
    return Polygon(points, is_line=kind in ("line", "linestrip"))
