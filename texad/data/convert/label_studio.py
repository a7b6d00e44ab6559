"""Labels in Label Studio's JSON: outlines in percent, and masks of the brush as run lengths.

https://labelstud.io/guide/export.html, JSON and JSON-MIN.
"""

from pathlib import Path
from typing import Any

import numpy as np

from texad.data.convert.marks import Mark
from texad.data.convert.outlines import Polygon, Runs, box, ellipse, runs
from texad.data.convert.source import Source, file_name, frame_of, numbers, reading
from texad.data.walking import is_image

# What names a label: the values of one of these keys.
LABELS = [f"{kind}labels" for kind in "polygon rectangle ellipse brush keypoint".split()]
LABELS += ["labels", "choices", "choice"]


def read_label_studio(source: Source) -> list[Mark]:
    """List the marks of Label Studio's tasks; one without a region or a choice is good.

    Tasks that were skipped are passed over.

    Raises
    ------
    DataError
        A ValueError that names the region.
    """
    marks: list[Mark] = []
    n_skipped = 0
    for file, tasks in source.documents("label-studio"):
        for i, task in enumerate(tasks):
            at = f"{file}, [{i}]"
            with reading(at):
                done = [
                    each for each in task.get("annotations", ()) if not each.get("was_cancelled")
                ]
                if task.get("annotations") and not done:
                    n_skipped += 1
                    continue
                texts = [
                    file_name(text)
                    for text in task.get("data", task).values()
                    if isinstance(text, str)
                ]
                name = next(filter(is_image, texts), "")
                path = source.find(name, at, source.roots(file))
                regions = [region for each in done for region in each["result"]]
                regions += [] if "annotations" in task else _regions(task)
                marks += source.judged(path, at, _marks(source, path, at, regions))
    if n_skipped:
        source.labels.notes.append(f"{n_skipped} tasks passed over, which were skipped")
    return marks + source.others(marks, are_good=False)


def _regions(task: dict[str, Any]) -> list[dict[str, Any]]:
    """Regions of JSON-MIN, as those of JSON are."""
    lists = [value for value in task.values() if isinstance(value, list)]
    found = [{"value": each, **each} for each in sum(lists, []) if isinstance(each, dict)]
    choices = task.get("choice") or task.get("choices")
    return found + ([{"value": {"choices": choices}}] if choices else [])


def _marks(source: Source, path: Path, at: str, regions: list[dict[str, Any]]) -> list[Mark]:
    regions = [region for region in regions if "value" in region]  # not what relates two of them
    # A region may be said twice: once with its outline, and once with its labels.
    named = {region.get("id"): names for region in regions if (names := _labels(region["value"]))}
    found: list[Mark] = []
    for i, region in enumerate(regions):
        where = f"{at}, result[{i}]"
        with reading(where):
            value = region["value"]
            size = frame_of(region.get("original_width"), region.get("original_height"))
            shape = _shape(value, size)
            if shape or "choices" in value:
                names = _labels(value) or named.get(region.get("id")) or ["defect"]
                shapes = (shape,) if shape else ()
                found += [
                    Mark(path, source.labels.defect(name), where, shapes, size) for name in names
                ]
    return found


def _labels(value: dict[str, Any]) -> list[str]:
    found: Any = next((value[key] for key in LABELS if value.get(key)), [])
    return [found] if isinstance(found, str) else [str(each) for each in found]


def _shape(value: dict[str, Any], size: tuple[int, int] | None) -> Polygon | Runs | None:
    if not {"points", "x", "rle"} & value.keys():
        return None
    if size is None:
        raise ValueError("the size of the image is missing")
    if "rle" in value:
        levels = _unpacked(value["rle"], 4 * size[0] * size[1])  # red, green, blue and opacity
        return runs(levels.reshape(size[1], size[0], 4)[:, :, 3] > 0)
    percent = np.array(size) / 100
    if "points" in value:
        points = [numbers(point) for point in value["points"]]
        return Polygon(np.array(points).reshape(-1, 2) * percent)
    x, y = numbers([value["x"], value["y"]]) * percent
    degrees = float(value.get("rotation") or 0)
    if "radiusX" in value:
        radius_x, radius_y = numbers([value["radiusX"], value["radiusY"]]) * percent
        return ellipse(x, y, radius_x, radius_y, degrees=degrees)
    if "height" not in value:  # a key point
        return Polygon(np.array([(x, y)]))
    width, height = numbers([value["width"], value["height"]]) * percent
    return box(x, y, width, height, degrees=degrees, about_corner=True)


def _unpacked(code: list[int], n_expected: int) -> np.ndarray:
    """Decode the run lengths of the brush: bits of a stream of values, uint8.

    The stream starts with the number of values (32 bits), the bits of a value less one (5 bits) and
    four lengths in bits less one (4 bits each). Each run then has one bit that says whether it
    repeats one value, two bits that choose a length, the number of its values less one, in so many
    bits, and its value or values. https://github.com/thi-ng/umbrella, rle-pack.

    Raises
    ------
    ValueError
        The code is damaged.
    """
    bits = "".join(map("{:08b}".format, np.array(code, dtype=np.uint8).tolist()))
    at = 0

    def take(n: int) -> int:
        nonlocal at
        at += n
        return int(bits[at - n : at], 2)

    n_values, word = take(32), take(5) + 1
    if n_values != n_expected:
        raise ValueError(f"run lengths of {n_values} values instead of {n_expected}")
    sizes = [take(4) + 1 for _ in range(4)]
    values = np.zeros(n_values, dtype=np.uint8)
    done = 0
    while done < n_values:
        repeats = take(1)
        end = done + 1 + take(sizes[take(2)])
        values[done:end] = take(word) if repeats else [take(word) for _ in range(done, end)]
        done = end
    return values
