"""A data set that needs no download: five textures with defects, drawn from random numbers.

The book runs anywhere, and at once, on images that are made where it runs. They carry the names of
the five textures of MVTec AD and of their defects, lie on disk in its layout, and are meant to be
as hard: light and contrast differ from photograph to photograph, so that no detector gets far by
looking at the mean colour of an image.

`textures` draws the materials, `defects` damages them, `camera` takes the photograph.

MVTec AD, a comprehensive real-world dataset for unsupervised anomaly detection, Bergmann et al.,
CVPR 2019.
"""

import csv
import json
import shutil
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from texad.data.synthetic import camera
from texad.data.synthetic.defects import DEFECTS
from texad.data.synthetic.textures import TEXTURES, with_colour
from texad.errors import check_choice, check_range
from texad.io.atomic import filling

GENERATOR = 2  # to be raised when the same seed gives other images or masks than before
LIMITS = {
    "seed": (0, None),
    "n_train": (1, None),
    "n_good": (0, None),
    "n_defective": (0, None),
    "size": (64, 1024),
}
CATEGORIES = {category: tuple(kinds) for category, kinds in DEFECTS.items()}


def texture(category: str, rng: np.random.Generator, size: int = 256) -> np.ndarray:
    """One image of a material without defect.

    Parameters
    ----------
    category : {"carpet", "grid", "leather", "tile", "wood"}
    rng : numpy.random.Generator
    size : int, default 256
        Height and width in pixels, from 64 to 1024.

    Returns
    -------
    ndarray, uint8, shape (size, size, 3)

    Raises
    ------
    ValueError
        If the category is unknown or the size out of range.
    """
    check_choice("category", category, CATEGORIES)
    return _photograph(
        category, None, 0.0, rng, rng.random(camera.CONDITIONS), _whole("size", size)
    )[0]


def defective(
    category: str, defect: str, severity: float, rng: np.random.Generator, size: int = 256
) -> tuple[np.ndarray, np.ndarray]:
    """One image of a material with a defect, and where the defect is.

    A generator with the same seed gives `texture` the same image without the defect.

    Parameters
    ----------
    category : {"carpet", "grid", "leather", "tile", "wood"}
    defect : str
        One of ``CATEGORIES[category]``.
    severity : float
        From just above 0 (hard to see) to 1 (obvious).
    rng : numpy.random.Generator
    size : int, default 256

    Returns
    -------
    image : ndarray, uint8, shape (size, size, 3)
    mask : ndarray, bool, shape (size, size)
        True where the defect changes the image.

    Raises
    ------
    ValueError
        If the category or the defect is unknown, or a number out of range.
    """
    check_choice("category", category, CATEGORIES)
    check_choice(f"defect of {category}", defect, CATEGORIES[category])
    check_range("severity", severity, above=0, at_most=1)
    return _photograph(
        category, defect, severity, rng, rng.random(camera.CONDITIONS), _whole("size", size)
    )


def write(
    root: str | Path,
    category: str,
    *,
    seed: int = 0,
    n_train: int = 96,
    n_good: int = 24,
    n_defective: int = 40,
    size: int = 256,
    progress: bool = False,
) -> Path:
    """Write one category in the layout of MVTec AD, unless it is there already.

    The folder appears whole or not at all. `synthetic.json` in it keeps the parameters: a folder
    made with the same parameters is left as it is, one made with others is replaced. `defects.csv`
    lists path, defect and severity of the defective images.

    Parameters
    ----------
    root : str or Path
        Folder of the data set; made if need be.
    category : {"carpet", "grid", "leather", "tile", "wood"}
    seed : int, default 0
        The same seed gives the same bytes.
    n_train, n_good, n_defective : int, default 96, 24, 40
        Number of training images, of test images without defect, and of test images with a defect
        (dealt out evenly to the kinds of defect).
    size : int, default 256
        Height and width in pixels.
    progress : bool, default False
        Show a progress bar.

    Returns
    -------
    Path
        The folder of the category.

    Raises
    ------
    ValueError
        If the category is unknown or a number out of range.
    FileExistsError
        If there is a folder of that name which this function has not written.
    """
    check_choice("category", category, CATEGORIES)
    parameters = {
        "generator": GENERATOR,
        "category": category,
        "seed": _whole("seed", seed),
        "n_train": _whole("n_train", n_train),
        "n_good": _whole("n_good", n_good),
        "n_defective": _whole("n_defective", n_defective),
        "size": _whole("size", size),
    }
    folder = Path(root) / category
    record = folder / "synthetic.json"
    with suppress(OSError, ValueError):  # there is none, or it is damaged
        if json.loads(record.read_text(encoding="utf-8")) == parameters:
            return folder
    if folder.exists() and not record.is_file() and any(folder.iterdir()):
        raise FileExistsError(
            f"{folder} exists and was not written by texad.data.synthetic; choose another root, or "
            "move it away"
        )
    with filling(folder) as temporary:
        _write_images(temporary, parameters, progress)
        (temporary / record.name).write_text(
            json.dumps(parameters, indent=2) + "\n", encoding="utf-8"
        )
        if folder.exists():
            shutil.rmtree(folder)
    return folder


def _write_images(folder: Path, parameters: dict[str, Any], progress: bool) -> None:
    category, kinds = parameters["category"], CATEGORIES[parameters["category"]]
    groups = [
        ("train", "good", parameters["n_train"]),
        ("test", "good", parameters["n_good"]),
        *(
            ("test", kind, (parameters["n_defective"] + len(kinds) - 1 - k) // len(kinds))
            for k, kind in enumerate(kinds)
        ),
    ]
    images = [(*group, index) for group in groups for index in range(group[2])]
    rows = [("path", "defect", "severity")]
    for split, kind, count, index in tqdm(images, category, unit="image", disable=not progress):
        key = [
            parameters["seed"],
            *(zlib.crc32(word.encode()) for word in (category, split, kind)),
        ]
        # From 0.2 to 1 in even steps, in random order.
        order = np.random.default_rng([*key, count]).permutation(count)
        severity = float(0.2 + 0.8 * (order[index] + 0.5) / count)
        defect = None if kind == "good" else kind
        image, mask = _photograph(
            category,
            defect,
            severity,
            np.random.default_rng([*key, index]),
            camera.dealt_conditions(np.random.default_rng(key), index),
            parameters["size"],
        )
        path = Path(split, kind, f"{index:03d}.png")
        _save(image, folder / path, compress_level=1)
        if defect:
            _save(
                mask.astype(np.uint8) * 255,
                folder / "ground_truth" / kind / f"{index:03d}_mask.png",
            )
            rows.append((path.as_posix(), kind, f"{severity:.3f}"))
    with (folder / "defects.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def _save(pixels: np.ndarray, file: Path, compress_level: int = -1) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file, compress_level=compress_level)


def _photograph(
    category: str,
    defect: str | None,
    severity: float,
    rng: np.random.Generator,
    conditions: np.ndarray,
    size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the material, damage it, and photograph it."""
    surface_rng, camera_rng, defect_rng = rng.spawn(3)  # so that the defect changes nothing else
    surface = TEXTURES[category](surface_rng, size, camera.distance(conditions))
    damaged = None
    if defect:
        damaged = with_colour(surface, DEFECTS[category][defect](surface, severity, defect_rng))
    return camera.photograph(surface, damaged, conditions, camera_rng)


def _whole(name: str, value: float) -> int:
    if int(value) != value:
        raise ValueError(f"{name} must be a whole number, not {value!r}")
    check_range(name, value, at_least=LIMITS[name][0], at_most=LIMITS[name][1])
    return int(value)
