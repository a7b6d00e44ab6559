"""A data set that needs no download: five textures with defects, drawn from random numbers.

The book runs anywhere, and at once, on images that are made where it runs. They carry the names of
the five textures of MVTec AD and of their defects, lie on disk in its layout, and are meant to be
as hard: light and contrast differ from photograph to photograph, so that no detector gets far by
looking at the mean colour of an image.

`textures` draws the materials, `defects` damages them, `camera` takes the photograph. There are two
editions: all that is said above holds for both, but in the second (`second`) good pieces differ
from each other as real ones do, and defects go down to what can hardly be seen.

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

from texad.data.synthetic import camera, second
from texad.data.synthetic.defects import DEFECTS
from texad.data.synthetic.textures import TEXTURES, with_colour
from texad.errors import check_choice, check_range
from texad.io.atomic import filling

GENERATOR = 2  # to be raised when the same seed gives other images or masks than before
LIMITS = {
    "edition": (1, 2),
    "seed": (0, None),
    "n_train": (1, None),
    "n_good": (0, None),
    "n_defective": (0, None),
    "size": (64, 1024),
}
CATEGORIES = {category: tuple(kinds) for category, kinds in DEFECTS.items()}
EDITIONS = {
    edition: {category: tuple(kinds) for category, kinds in drawn.items()}
    for edition, drawn in ((1, DEFECTS), (2, second.DEFECTS))
}  # kinds of defect of each category
AMOUNTS = {  # n_train, n_good and n_defective of each edition
    "large": {1: (96, 24, 40), 2: (100, 120, 105)},
    "small": {1: (24, 8, 10), 2: (24, 12, 14)},
}


def texture(
    category: str, rng: np.random.Generator, size: int = 256, edition: int = 1
) -> np.ndarray:
    """One image of a material without defect.

    Parameters
    ----------
    category : {"carpet", "grid", "leather", "tile", "wood"}
    rng : numpy.random.Generator
    size : int, default 256
        Height and width in pixels, from 64 to 1024.
    edition : {1, 2}, default 1
        Images of the second edition may be larger than `size`, and not square.

    Returns
    -------
    ndarray, uint8, shape (height, width, 3)

    Raises
    ------
    ValueError
        If the category or the edition is unknown, or the size out of range.
    """
    check_choice("category", category, CATEGORIES)
    edition = _whole("edition", edition)
    return _any_edition(edition, category, None, 0.0, rng, _whole("size", size))[0]


def defective(
    category: str,
    defect: str,
    severity: float,
    rng: np.random.Generator,
    size: int = 256,
    edition: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """One image of a material with a defect, and where the defect is.

    A generator with the same seed gives `texture` the same image without the defect.

    Parameters
    ----------
    category : {"carpet", "grid", "leather", "tile", "wood"}
    defect : str
        One of ``EDITIONS[edition][category]``.
    severity : float
        From just above 0 (hard to see) to 1 (obvious).
    rng : numpy.random.Generator
    size : int, default 256
    edition : {1, 2}, default 1
        See `texture`.

    Returns
    -------
    image : ndarray, uint8, shape (height, width, 3)
    mask : ndarray, bool, shape (height, width)
        True where the defect changes the image.

    Raises
    ------
    ValueError
        If the category, the edition or the defect is unknown, or a number out of range.
    """
    check_choice("category", category, CATEGORIES)
    edition = _whole("edition", edition)
    check_choice(f"defect of {category}", defect, EDITIONS[edition][category])
    check_range("severity", severity, above=0, at_most=1)
    return _any_edition(edition, category, defect, severity, rng, _whole("size", size))


def write(
    root: str | Path,
    category: str,
    *,
    seed: int = 0,
    edition: int = 1,
    amount: str = "large",
    n_train: int | None = None,
    n_good: int | None = None,
    n_defective: int | None = None,
    size: int = 256,
    progress: bool = False,
) -> Path:
    """Write one category in the layout of MVTec AD, unless it is there already.

    The folder appears whole or not at all. `synthetic.json` in it keeps the parameters: a folder
    made with the same parameters is left as it is, one made with others is replaced. `defects.csv`
    lists path, defect and severity of the defective images, in the second edition also the
    contrast-to-noise ratio (see `second.contrast_to_noise`); and there `groups.csv` lists path and
    group (the batch) of all images.

    Parameters
    ----------
    root : str or Path
        Folder of the data set; made if need be.
    category : {"carpet", "grid", "leather", "tile", "wood"}
    seed : int, default 0
        The same seed gives the same bytes.
    edition : {1, 2}, default 1
    amount : {"large", "small"}, default "large"
        How many images there are if nothing else is said, see `AMOUNTS`: "small" is for tests.
    n_train, n_good, n_defective : int, optional
        Number of training images, of test images without defect, and of test images with a defect
        (dealt out evenly to the kinds of defect); by default those of `amount`.
    size : int, default 256
        Height and width in pixels; in the second edition some are larger, see `second.SHAPES`.
    progress : bool, default False
        Show a progress bar.

    Returns
    -------
    Path
        The folder of the category.

    Raises
    ------
    ValueError
        If the category, the edition or the amount is unknown, or a number out of range.
    FileExistsError
        If there is a folder of that name which this function has not written.
    """
    check_choice("category", category, CATEGORIES)
    edition = _whole("edition", edition)
    check_choice("amount", amount, AMOUNTS)
    wanted = zip((n_train, n_good, n_defective), AMOUNTS[amount][edition], strict=True)
    numbers = [usual if given is None else given for given, usual in wanted]
    first = edition == 1
    parameters = {
        **({} if first else {"edition": edition}),
        "generator": GENERATOR if first else second.GENERATOR,
        "category": category,
        "seed": _whole("seed", seed),
        "n_train": _whole("n_train", numbers[0]),
        "n_good": _whole("n_good", numbers[1]),
        "n_defective": _whole("n_defective", numbers[2]),
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
        (_write_images if first else second.write_images)(temporary, parameters, progress)
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


def _any_edition(
    edition: int,
    category: str,
    defect: str | None,
    severity: float,
    rng: np.random.Generator,
    size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Photograph one piece under conditions of its own."""
    if edition == 1:
        return _photograph(category, defect, severity, rng, rng.random(camera.CONDITIONS), size)
    batch = second.draw_batch(category, rng)
    return second.photograph(category, defect, severity, rng, batch, size)[:2]


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
