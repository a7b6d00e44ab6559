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
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from texad.data.synthetic import camera
from texad.data.synthetic.defects import DEFECTS
from texad.data.synthetic.textures import TEXTURES, with_colour
from texad.errors import check_range, did_you_mean
from texad.io.atomic import filling

GENERATOR = 1  # to be raised when the same seed gives other images than before
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
    _check(category, size=size)
    return _photograph(category, None, 0.0, rng, rng.random(camera.CONDITIONS), size)[0]


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
    _check(category, defect, severity, size)
    return _photograph(category, defect, severity, rng, rng.random(camera.CONDITIONS), size)


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
    _check_name("category", category, tuple(CATEGORIES))
    numbers = {
        "seed": seed,
        "n_train": n_train,
        "n_good": n_good,
        "n_defective": n_defective,
        "size": size,
    }
    for name, value in numbers.items():
        _check_whole(name, value)
    whole = {name: int(value) for name, value in numbers.items()}
    parameters = {"generator": GENERATOR, "category": category, **whole}
    folder = Path(root) / category
    if _written_with(folder) == parameters:
        return folder
    with filling(folder) as temporary:
        _write_images(temporary, parameters, progress)
        record = json.dumps(parameters, indent=2)
        (temporary / "synthetic.json").write_text(record + "\n", encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
    return folder


def _written_with(folder: Path) -> dict | None:
    """The parameters that a folder was written with; None if there is no folder."""
    record = folder / "synthetic.json"
    if record.is_file():
        try:
            return json.loads(record.read_text(encoding="utf-8"))
        except ValueError:
            return None
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(
            f"{folder} exists and was not written by texad.data.synthetic; choose another root, or "
            "move it away"
        )
    return None


def _write_images(folder: Path, parameters: dict, progress: bool) -> None:
    category, size = parameters["category"], parameters["size"]
    kinds = CATEGORIES[category]
    groups = [("train", "good", parameters["n_train"]), ("test", "good", parameters["n_good"])]
    for k, kind in enumerate(kinds):
        groups.append(
            ("test", kind, (parameters["n_defective"] + len(kinds) - 1 - k) // len(kinds))
        )
    images = [(*group, index) for group in groups for index in range(group[2])]
    for split, kind, _ in groups:
        (folder / split / kind).mkdir(parents=True)
        if kind != "good":
            (folder / "ground_truth" / kind).mkdir(parents=True)
    rows = [("path", "defect", "severity")]
    for split, kind, count, index in tqdm(images, category, unit="image", disable=not progress):
        words = (zlib.crc32(word.encode()) for word in (category, split, kind))
        key = [parameters["seed"], *words]
        rng = np.random.default_rng([*key, index])
        conditions = camera.dealt_conditions(np.random.default_rng(key), index)
        path = Path(split) / kind / f"{index:03d}.png"
        defect, severity = None, 0.0
        if kind != "good":
            defect = kind
            severity = _dealt_severity(np.random.default_rng([*key, count]), index, count)
            rows.append((path.as_posix(), kind, f"{severity:.3f}"))
        image, mask = _photograph(category, defect, severity, rng, conditions, size)
        Image.fromarray(image).save(folder / path, compress_level=1)
        if kind != "good":
            drawn = Image.fromarray(mask.astype(np.uint8) * 255)
            drawn.save(folder / "ground_truth" / kind / f"{index:03d}_mask.png")
    with (folder / "defects.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def _dealt_severity(rng: np.random.Generator, index: int, count: int) -> float:
    """Severities from 0.2 to 1 in even steps, in random order."""
    return float(0.2 + 0.8 * (rng.permutation(count)[index] + 0.5) / count)


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
    if defect is not None:
        damaged = with_colour(surface, DEFECTS[category][defect](surface, severity, defect_rng))
    return camera.photograph(surface, damaged, conditions, camera_rng)


def _check(
    category: str, defect: str | None = None, severity: float = 1.0, size: int = 256
) -> None:
    _check_name("category", category, tuple(CATEGORIES))
    if defect is not None:
        _check_name(f"defect of {category}", defect, CATEGORIES[category])
    check_range("severity", severity, above=0, at_most=1)
    _check_whole("size", size)


def _check_whole(name: str, value: float) -> None:
    if int(value) != value:
        raise ValueError(f"{name} must be a whole number, not {value!r}")
    least, most = LIMITS[name]
    check_range(name, value, at_least=least, at_most=most)


def _check_name(what: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        hint = did_you_mean(str(name), known)
        raise ValueError(f"unknown {what} {name!r}{hint}; choose from {', '.join(known)}")
