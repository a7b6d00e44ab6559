"""Labels in CVAT's own XML, "CVAT for images 1.1": shapes, masks and tags of each image.

https://docs.cvat.ai/docs/manual/advanced/xml_format/.
"""

from xml.etree.ElementTree import Element

import numpy as np

from texad.data.convert.marks import Mark
from texad.data.convert.outlines import Polygon, Runs, box, ellipse
from texad.data.convert.source import Source, frame_of, numbers, reading
from texad.errors import DataError


def read_cvat(source: Source) -> list[Mark]:
    """List the marks of CVAT's XML; an image that is listed without a label is good.

    Raises
    ------
    DataError
        A ValueError that names the image; or the file is of a video.
    """
    marks: list[Mark] = []
    for file, root in source.documents("cvat"):
        if root.find("track") is not None:
            raise DataError(f"{file} is of a video: export it as 'CVAT for images 1.1' or COCO")
        for image in root.iter("image"):
            at = f"{file}, image {image.get('name')}"
            with reading(at):
                subset = image.get("subset", "")
                path = source.find(image.attrib["name"], at, source.roots(file, subset))
                frame = frame_of(image.get("width"), image.get("height"))
                said = []
                for i, element in enumerate(image):
                    where = f"{at}, {element.tag}[{i}]"
                    with reading(where):
                        shape = _shape(element)
                        defect = source.labels.defect(element.attrib["label"])
                        said.append(Mark(path, defect, where, (shape,) if shape else (), frame))
            marks += source.judged(path, at, said)
    return marks + source.others(marks, are_good=False)


def _shape(element: Element) -> Polygon | Runs | None:
    kind, attributes = element.tag, element.attrib
    degrees = float(attributes.get("rotation", 0))
    if kind == "box":
        left, top, right, bottom = numbers(
            attributes[name] for name in ("xtl", "ytl", "xbr", "ybr")
        )
        return box(left, top, right - left, bottom - top, degrees=degrees)
    if kind == "ellipse":
        around = numbers(attributes[name] for name in ("cx", "cy", "rx", "ry"))
        return ellipse(*around, degrees=degrees)
    if kind == "mask":
        height, width, left, top = (
            int(float(attributes[name])) for name in ("height", "width", "left", "top")
        )
        counts = np.array([int(count) for count in attributes["rle"].split(",")], dtype=np.int64)
        return Runs(counts, height, width, left, top, by_rows=True)
    if "points" not in attributes:  # a tag
        return None
    points = [numbers(point.split(",")) for point in attributes["points"].split(";")]
    return Polygon(np.array(points).reshape(-1, 2), is_line=kind == "polyline")
