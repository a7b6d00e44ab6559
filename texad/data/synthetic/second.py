"""The second edition: the same five materials as a production line sees them, good and bad.

The first edition's pieces are all alike, so that any defect stands out. Here good pieces differ as
real ones do: they come in batches with a light, a focus, a colour and a wear of their own, and each
carries dust and lint, which are normal. Defects go from plain to nearly invisible. Some are thin
(a hairline), some cover the whole piece (a shade), and some change the structure and no colour (a
wrong weave, a foreign grain).
"""

import csv
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage
from tqdm import tqdm

from texad.data.synthetic import camera, defects
from texad.data.synthetic.textures import TEXTURES, UNITS, Surface, noise, step, with_colour

Random = np.random.Generator
Damage = tuple[np.ndarray, np.ndarray | None]

GENERATOR = 1  # to be raised when the same seed gives other images or masks than before
# how far a batch lies from the usual, and an image from its batch, in spreads of the first edition:
# level, contrast, warmth, green cast, noise, focus, distance, tilt of the light
OF_BATCHES = np.array([3.5, 0.8, 2.0, 1.5, 1.0, 1.6, 1.2, 1.0])
OF_IMAGES = np.array([1.5, 0.4, 0.4, 0.3, 0.3, 0.6, 0.4, 0.5])
SHAPES = {  # height and width of the photographs, in sides of the data set's `size`; one a batch
    "carpet": ((1, 1),),
    "grid": ((0.875, 1.25),),
    "leather": ((1, 1), (1.25, 1.25), (1, 1.25)),
    "tile": ((1.125, 1.125),),
    "wood": ((1.25, 0.8125),),
}
# images of a batch: for training, or good and defective ones for the test
SIZES = {"train": 4, "good": 6, "defective": 5}
QUALITY = 90  # of the JPEG files
DUST, LINT = (4.0, 30.0), (0.0, 3.0)  # specks and fibres on a piece, from clean batches to dusty
SPECK, FIBRE = 80, 45  # their greatest opacity, of 128
FAINTEST = 0.4  # opacity of the least severe defect


@dataclass(frozen=True)
class Batch:
    """What the images of a batch have in common.

    Attributes
    ----------
    conditions : ndarray, shape (camera.CONDITIONS,)
        Of the middle of the batch, see `camera.photograph`; 0.5 is usual.
    wear : float
        How worn the pieces are, in [0, 1].
    dust, lint : float
        Mean number of specks and of fibres on a piece.
    shape : (float, float)
        See `SHAPES`.
    """

    conditions: np.ndarray
    wear: float
    dust: float
    lint: float
    shape: tuple[float, float]


def draw_batch(category: str, rng: Random) -> Batch:
    """Draw a batch."""
    shapes = SHAPES[category]
    return Batch(
        0.5 + OF_BATCHES * rng.uniform(-1, 1, camera.CONDITIONS),
        rng.uniform(0, 1),
        rng.uniform(*DUST),
        rng.uniform(*LINT),
        shapes[rng.integers(len(shapes))],
    )


def photograph(
    category: str, defect: str | None, severity: float, rng: Random, batch: Batch, size: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """Draw a piece of a batch, damage it, and photograph it.

    Returns
    -------
    image : ndarray, uint8, shape (H, W, 3)
    mask : ndarray, bool, shape (H, W)
    contrast_to_noise : float
        See `contrast_to_noise`; NaN without defect.
    """
    surface_rng, camera_rng, defect_rng, worn_rng = rng.spawn(4)
    height, width = (round(side * size) for side in batch.shape)
    conditions = batch.conditions + OF_IMAGES * rng.uniform(-1, 1, camera.CONDITIONS)
    conditions[[4, 5, 7]] = np.abs(conditions[[4, 5, 7]])  # noise, focus, tilt
    side = max(height, width)
    clean = TEXTURES[category](surface_rng, side, camera.distance(conditions))
    finish = _finish(clean, batch, worn_rng)
    surface, damaged, extent = with_colour(clean, finish(clean.colour)), None, None
    if defect:
        colour, extent = DEFECTS[category][defect](clean, severity, defect_rng)
        damaged = with_colour(clean, finish(colour))
    top, left = (side - height) // 2, (side - width) // 2
    frame = np.s_[top : top + height, left : left + width]
    seed = camera_rng.integers(2**62)

    def take(piece: Surface | None) -> tuple[np.ndarray, np.ndarray]:
        image, mask = camera.photograph(surface, piece, conditions, np.random.default_rng(seed))
        return image[frame], (mask if extent is None or piece is None else extent)[frame]

    image, mask = take(damaged)
    if damaged is None:
        return image, mask, float("nan")
    mask = camera.without_slivers(mask)
    return image, mask, contrast_to_noise(image, take(None)[0], mask)


def contrast_to_noise(image: np.ndarray, without: np.ndarray, mask: np.ndarray) -> float:
    """How much a defect stands out: contrast-to-noise ratio.

    The mean absolute change of the grey level inside the mask, divided by the standard deviation of
    the grey level there and around without the defect (in the rectangle about the mask, a sixteenth
    of the image wider on each side). The change is absolute, since a defect of structure makes some
    pixels brighter and others darker.

    Parameters
    ----------
    image, without : ndarray, shape (H, W, 3)
        The same photograph, noise included, with and without the defect.
    mask : ndarray, bool, shape (H, W)

    Examples
    --------
    >>> without = np.arange(64 * 3).reshape(8, 8, 3) % 2 * 10.0  # grey levels of 10/3 and 20/3
    >>> mask = np.zeros((8, 8), bool)
    >>> mask[2:4, 2:4] = True
    >>> contrast_to_noise(without + 5 * mask[..., None], without, mask)
    3.0
    """
    rows, columns = ndimage.find_objects(mask.astype(int))[0]
    margin = len(mask) // 16
    around = np.s_[
        max(rows.start - margin, 0) : rows.stop + margin,
        max(columns.start - margin, 0) : columns.stop + margin,
    ]
    change = np.abs(image.mean(axis=2) - without.mean(axis=2))[mask].mean()
    return float(change / without.mean(axis=2)[around].std())


def _finish(surface: Surface, batch: Batch, rng: Random) -> Callable[[np.ndarray], np.ndarray]:
    """Wear, dust and lint: the same on a piece with and without its defect."""
    size, pixels = surface.size, surface.size / UNITS
    clouds, rubbed = noise(rng, size, 45), step(noise(rng, size, 25), 0.2, 1.4)
    rubbed *= 0.7 * batch.wear * rng.uniform(0.3, 1)
    tone = (1 + (0.01 + 0.025 * batch.wear) * clouds + 0.04 * rubbed)[..., None]
    litter = _litter(surface, batch, rng)[..., None]

    def finish(colour: np.ndarray) -> np.ndarray:
        smooth = ndimage.uniform_filter(colour, (round(2 * pixels) + 1,) * 2 + (1,))
        worn = (colour + rubbed[..., None] * (smooth - colour)) * tone
        return worn + litter * (np.where(litter > 0, 0.85, -0.1) - worn * np.sign(litter))

    return finish


def _litter(surface: Surface, batch: Batch, rng: Random) -> np.ndarray:
    """Opacity of dust and lint: positive where it is bright, negative where dark."""
    scale = 2 * surface.size / UNITS  # drawn twice as large, so that edges are smooth
    canvas = Image.new("L", (2 * surface.size,) * 2, 128)
    pen = ImageDraw.Draw(canvas)

    def ink(most: int) -> int:
        return int(128 + rng.choice([-1, 1]) * rng.uniform(10, most))

    for _ in range(rng.poisson(batch.dust)):
        x, y = rng.uniform(0, UNITS, 2)
        a, b = np.exp(rng.normal(-0.5, 0.4, 2))
        pen.ellipse([scale * v for v in (x - a, y - b, x + a, y + b)], fill=ink(SPECK))
    for _ in range(rng.poisson(batch.lint)):
        points = defects.curve(rng, rng.uniform(6, 30), rng.uniform(0.5, 3))
        points += rng.uniform(-UNITS, UNITS, 2) / 3
        width = max(1, round(scale * rng.uniform(0.4, 1.0)))
        pen.line([tuple(scale * point) for point in points], fill=ink(FIBRE), width=width)
    return np.asarray(canvas.reduce(2), dtype=np.float32) / 128 - 1


# -- defects ---------------------------------------------------------------------------------------


def _opacity(severity: float) -> np.float32:
    return np.float32(FAINTEST ** ((1 - severity) ** 2))


def _faded(
    damage: Callable[[Surface, float, Random], np.ndarray],
    surface: Surface,
    severity: float,
    rng: Random,
) -> Damage:
    """A local defect of any size: the less severe, the fainter."""
    colour = damage(surface, rng.uniform(0.2, 1.0), rng)
    return surface.colour + _opacity(severity) * (colour - surface.colour), None


def _whole(
    damage: Callable[[Surface, float, Random], np.ndarray],
    surface: Surface,
    severity: float,
    rng: Random,
) -> Damage:
    """A local defect that is small where it is not severe, and never faint."""
    return damage(surface, severity, rng), None


def hairline(surface: Surface, severity: float, rng: Random) -> np.ndarray:
    """A hairline crack: as thin as the grain, jagged, and long."""
    points = defects.curve(rng, rng.uniform(35, 130), 0.8)
    points += ndimage.gaussian_filter1d(rng.normal(0, 2.5, points.shape), 2.5, axis=0)
    aside, position = defects.stroke(surface.size, points, 4)
    width = rng.uniform(0.7, 1.3) * (1.2 - 0.6 * position)
    return surface.colour * (1 - 0.8 * defects.line(aside, width))[..., None]


def shade(surface: Surface, severity: float, rng: Random) -> Damage:
    """A shade over the whole piece: a dye or a cleaner that was laid on unevenly."""
    clouds = noise(rng, surface.size, rng.uniform(15, 45), rng.uniform(15, 45), surface.angle)
    tint = 1 + rng.uniform(-0.3, 0.3, 3)
    strength = 0.15 * _opacity(severity) * rng.choice([-1, 1])
    colour = surface.colour * (1 + strength * (0.7 * clouds + 0.4)[..., None] * tint)
    return colour, np.ones(clouds.shape, dtype=bool)


def structure(category: str, surface: Surface, severity: float, rng: Random) -> Damage:
    """The right colour in the wrong structure, in one place or on the whole piece.

    A twill that leans the other way, wires in pairs, pebbles, flecks or rings of another size.
    """
    size = surface.size
    depth: np.ndarray = np.full((size, size), 9.0, dtype=np.float32)
    if rng.random() < 0.7:
        depth = defects.blob(rng, size, rng.uniform(14, 45))
    patch = step(depth, -3, 3)
    if surface.mesh:
        pairs = np.where(np.round(surface.mesh.first) % 2, 1, -1)
        return surface.mesh.draw(offset=(0.04 + 0.3 * severity) * pairs * patch), depth > 0
    ratio = np.exp(rng.choice([-1, 1]) * (0.25 + 0.5 * severity))
    other = TEXTURES[category](rng, size, ratio).colour
    other = other[:, ::-1] * (surface.colour.mean((0, 1)) / other.mean((0, 1)))
    opacity = _opacity(severity)
    return surface.colour + (opacity * patch)[..., None] * (other - surface.colour), depth > 0


OTHERS: dict[str, dict[str, Callable[[Surface, float, Random], Damage]]] = {
    "carpet": {"shade": shade, "weave": partial(structure, "carpet")},
    "grid": {
        "bent": partial(_whole, partial(defects.bent, least=0.05, dull=0.0)),
        "broken": partial(_whole, partial(defects.broken, least=0.1, dull=0.0)),
        "shade": shade,
        "weave": partial(structure, "grid"),
    },
    "leather": {
        "grain": partial(structure, "leather"),
        "hairline": partial(_faded, hairline),
    },
    "tile": {"shade": shade, "hairline": partial(_faded, hairline)},
    "wood": {
        "grain": partial(structure, "wood"),
        "hairline": partial(_faded, hairline),
    },
}
DEFECTS = {
    category: {kind: partial(_faded, damage) for kind, damage in kinds.items()} | OTHERS[category]
    for category, kinds in defects.DEFECTS.items()
}


# -- on disk ---------------------------------------------------------------------------------------


def write_images(folder: Path, parameters: dict[str, Any], progress: bool) -> None:
    """Write the images of a category, see `texad.data.synthetic.write`.

    Training and test images come from different batches, and each batch of the test has good and
    defective pieces.
    """
    category, numbers = parameters["category"], [parameters[f"n_{name}"] for name in SIZES]
    kinds = [*DEFECTS[category]]
    images = [
        (split, "good", i, f"{split}-{i // SIZES[part]:02d}", 0.0)
        for split, part, n in (("train", "train", numbers[0]), ("test", "good", numbers[1]))
        for i in range(n)
    ]
    for k, kind in enumerate(kinds):
        count = (numbers[2] + len(kinds) - 1 - k) // len(kinds)
        order = _random(parameters, kind, count).permutation(count)  # from 0 to 1 in even steps
        images += [
            ("test", kind, i, f"test-{(i * len(kinds) + k) // SIZES['defective']:02d}", level)
            for i, level in enumerate((order + 0.5) / count)
        ]
    rows, groups = [("path", "defect", "severity", "cnr")], [("path", "group")]
    for split, kind, i, group, severity in tqdm(
        images, category, unit="image", disable=not progress
    ):
        batch = draw_batch(category, _random(parameters, group))
        defect, rng = None if kind == "good" else kind, _random(parameters, split, kind, i)
        image, mask, cnr = photograph(category, defect, severity, rng, batch, parameters["size"])
        path = Path(split, kind, f"{i:03d}.jpg")
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / path, quality=QUALITY, comment=f"batch {group}")
        groups.append((path.as_posix(), group))
        if defect:
            truth = folder / "ground_truth" / kind / f"{i:03d}_mask.png"
            truth.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(truth)
            rows.append((path.as_posix(), kind, f"{severity:.3f}", f"{cnr:.3f}"))
    for name, table in (("defects.csv", rows), ("groups.csv", groups)):
        with (folder / name).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(table)


def _random(parameters: dict[str, Any], *words: object) -> Random:
    key = (zlib.crc32(str(word).encode()) for word in (parameters["category"], *words))
    return np.random.default_rng([parameters["seed"], *key])
