"""Training pictures: drawn textures and crops of free photographs, damaged and photographed anew.

A student answers like its teacher on what is like the pictures it was shown, so they must hold what
a camera sees on a surface: grain at the scale of single pixels, edges of metal parts,
hairlines, flat grey. Every picture is 224 x 224 pixels; the training cuts smaller ones from it.

Pictures come in blocks of 64. A block depends on the seed and its own number alone, so that many
processes draw the same pool as one, and a pool can grow later.
"""

import argparse
import io
import multiprocessing
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from scipy import ndimage

SIDE = 224  # pixels
BLOCK = 64  # pictures
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
SHIPPED = {  # photographs under free licences that come with Python packages
    "skimage": (
        "data",
        "astronaut brick camera cell chelsea coffee coins grass gravel ihc moon motorcycle_left "
        "page text",
    ),
    "sklearn": ("datasets/images", "china flower"),
    "matplotlib": ("mpl-data/sample_data", "grace_hopper"),
}


def photographs(folder: Path | None = None) -> list[Path]:
    """Return the image files below a folder, after those that Python packages ship."""
    found = []
    for package, (below, names) in SHIPPED.items():
        base = Path(__import__(package).__file__).parent / below
        found += [p for p in sorted(base.glob("*.*")) if p.stem in names.split()]
    below = sorted(folder.rglob("*")) if folder else []
    return [p for p in found + below if p.suffix.lower() in SUFFIXES]


def standard(field: np.ndarray) -> np.ndarray:
    """Return a field with mean 0 and standard deviation 1."""
    return (field - field.mean()) / (field.std() + 1e-9)


def between(rng: np.random.Generator, low: float, high: float) -> float:
    """Return a random number, uniform in its logarithm."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def noise(rng: np.random.Generator) -> np.ndarray:
    """Draw noise with a random spectrum: a power law, a ring, or one direction (brushed metal)."""
    fy, fx = np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None]
    angle = rng.choice([0, np.pi / 2, rng.uniform(0, np.pi)])
    stretch = between(rng, 0.05, 20) if rng.random() < 0.4 else 1.0
    u, v = fx * np.cos(angle) + fy * np.sin(angle), fy * np.cos(angle) - fx * np.sin(angle)
    r = np.hypot(u, v * stretch) + 1 / SIDE
    centre, kind = between(rng, 0.02, 0.45), rng.random()
    if kind < 0.6:
        amplitude = r ** -rng.uniform(0, 2.2)
    elif kind < 0.8:
        amplitude = np.exp(-(((r - centre) / (centre * rng.uniform(0.05, 0.6))) ** 2)) + 1e-3 / r
    else:
        width = centre * rng.uniform(0.02, 0.3)
        amplitude = np.exp(-((np.abs(u) - centre) ** 2 + v * v) / width**2) + 1e-3
    phase = np.exp(2j * np.pi * rng.random(r.shape)) * rng.rayleigh(size=r.shape)
    z = standard(np.fft.irfft2(amplitude * phase, s=(SIDE, SIDE)))
    folded = [z, z, z, np.abs(z), np.tanh(z * rng.uniform(1, 6)), np.sign(z - rng.normal(0, 0.7))]
    return standard(folded[rng.integers(len(folded))])


def cells(rng: np.random.Generator) -> np.ndarray:
    """Draw the cells nearest to random points: their shade, the distance, or their borders."""
    points = np.ones((SIDE, SIDE), bool)
    n = int(between(rng, 8, 3000))
    points[tuple(rng.integers(0, SIDE, (2, n)))] = False
    distance, nearest = ndimage.distance_transform_edt(points, return_indices=True)
    shade = rng.normal(size=(SIDE, SIDE))[tuple(nearest)]
    kind = rng.random()
    if kind < 0.4:
        return standard(shade)
    if kind < 0.7:
        return standard(distance)
    border = (shade != np.roll(shade, 1, 0)) | (shade != np.roll(shade, 1, 1))
    return standard(ndimage.gaussian_filter(border.astype(float), between(rng, 0.2, 1.5)))


def weave(rng: np.random.Generator) -> np.ndarray:
    """Draw two crossing waves, warped: cloth, a grid, tiles, ridges."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(float)
    angle = rng.choice([0, rng.uniform(0, np.pi)])
    period, warp = between(rng, 3, 90), noise(rng) * rng.uniform(0, 2) * rng.integers(2)
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    a = np.sin(2 * np.pi * (u + warp) / period)
    b = np.sin(2 * np.pi * (v + warp) / (period * rng.uniform(0.5, 2)))
    sharp = 1 - 2 * (np.maximum(np.abs(a), np.abs(b)) > rng.uniform(0.9, 0.995))
    return standard([a * b, np.maximum(a, b), a + b, a, np.sign(a), sharp][rng.integers(6)])


def colours(fields: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Mix three fields, rolled anew, into a picture: a main one and two weaker ones."""
    tints = (rng.random((3, 3)) - 0.5) * rng.choice([0.2, 1]) + rng.choice([-0.5, 0.5], (3, 1))
    picture = np.empty((SIDE, SIDE, 3))
    picture[:] = rng.uniform(0.1, 0.9) + rng.normal(0, 0.1, 3)
    strengths = rng.random(3) * [1, 0.5, 0.3] * between(rng, 0.03, 0.5)
    for tint, strength in zip(tints, strengths, strict=True):
        field = fields[rng.integers(len(fields))]
        field = np.roll(field, tuple(rng.integers(0, SIDE, 2)), (0, 1))
        picture += (field.T if rng.random() < 0.5 else field)[..., None] * (tint * strength)
    return picture


def crop(photograph: Image.Image, rng: np.random.Generator) -> np.ndarray:
    """Cut a square: half of the time pixel by pixel, as sharp as the camera was."""
    w, h = photograph.size
    kind, aspect = rng.random(), between(rng, 0.5, 2) if rng.random() < 0.25 else 1.0
    side = (
        SIDE
        if kind < 0.5
        else between(rng, SIDE, 4 * SIDE)
        if kind < 0.85
        else rng.uniform(90, 224)
    )
    across, down = min(w, side * aspect**0.5), min(h, side / aspect**0.5)
    if kind < 0.5 and min(w, h) >= SIDE:
        across = down = SIDE
    x, y = int(rng.random() * (w - across)), int(rng.random() * (h - down))
    box = (x, y, x + across, y + down)
    part = photograph.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box, reducing_gap=2.0)
    if rng.random() < 0.15:  # turned about its centre, and cut again
        part = part.rotate(rng.uniform(0, 360), Image.Resampling.BICUBIC)
        part = part.crop((33, 33, 191, 191)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return np.asarray(part, float) / 255


def path(rng: np.random.Generator, step: float, bend: float) -> list[tuple[float, float]]:
    """Walk at random from a random point: the points of a crack, a hair or a slender part."""
    at, angle, points = rng.random(2) * SIDE, rng.uniform(0, 2 * np.pi), []
    for _ in range(int(rng.integers(2, 25))):
        points.append(tuple(at))
        angle += rng.normal(0, bend)
        at = at + rng.uniform(0.3, 1) * step * np.array([np.cos(angle), np.sin(angle)])
    return points


def mask(rng: np.random.Generator, fields: Sequence[np.ndarray]) -> np.ndarray:
    """Draw the place of a defect: blotches, a fine line (1 to 2 pixels), scratches, or a blob."""
    kind = rng.random()
    if kind < 0.25:
        field = np.roll(fields[rng.integers(len(fields))], tuple(rng.integers(0, SIDE, 2)), (0, 1))
        drawn = Image.fromarray((field > rng.uniform(0.8, 2)).astype(np.uint8) * 255)
    else:
        scale = 2  # drawn at twice the size, so that a line can be half a pixel wide
        drawn = Image.new("L", (scale * SIDE, scale * SIDE))
        draw = ImageDraw.Draw(drawn)
        fine, step = rng.random() < 0.6, between(rng, 3, 40)
        bend = rng.choice([0.02, 0.3, 0.9])
        for _ in range(1 if rng.random() < 0.6 else int(rng.integers(2, 20))):
            line = [(scale * x, scale * y) for x, y in path(rng, step, bend)]
            if kind < 0.8:
                draw.line(line, fill=255, width=int(rng.integers(1, 5 if fine else 16)))
            else:
                (x, y), r, a = line[0], between(rng, 2, 60), rng.uniform(0.3, 1)
                draw.ellipse((x - r, y - r * a, x + r, y + r * a), fill=255)
        drawn = drawn.resize((SIDE, SIDE), Image.Resampling.BOX)
    if rng.random() < 0.4:
        drawn = drawn.filter(ImageFilter.GaussianBlur(rng.uniform(0, 2)))
    return np.asarray(drawn, float)[..., None] / 255


def silhouette(rng: np.random.Generator) -> np.ndarray:
    """Draw where a part lies on a flat ground: rods, plates, holes, with sharp edges."""
    drawn = Image.new("L", (2 * SIDE, 2 * SIDE))
    draw = ImageDraw.Draw(drawn)
    for k in range(int(rng.integers(1, 6))):
        fill = 255 if k == 0 or rng.random() < 0.6 else 0
        (x, y), r, a = rng.random(2) * 2 * SIDE, between(rng, 10, 300), between(rng, 0.1, 1)
        box, kind = (x - r, y - r * a, x + r, y + r * a), rng.integers(4)
        if kind == 0:
            draw.ellipse(box, fill=fill)
        elif kind == 1:
            draw.rounded_rectangle(box, r * a * rng.random(), fill=fill)
        elif kind == 2:
            draw.polygon([tuple(p) for p in rng.random((4, 2)) * 2 * SIDE], fill=fill)
        else:
            line = [(2 * p, 2 * q) for p, q in path(rng, between(rng, 20, 200), 0.15)]
            draw.line(line, fill=fill, width=int(between(rng, 6, 120)), joint="curve")
    turned = drawn.rotate(rng.choice([0, 90, rng.uniform(0, 360)]), Image.Resampling.BICUBIC)
    return np.asarray(turned.resize((SIDE, SIDE), Image.Resampling.BOX), float)[..., None] / 255


def photographed(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Light a picture and take it with a camera: shading, contrast, grey, grain, compression."""
    if rng.random() < 0.3:  # light falls off smoothly
        slope = np.linspace(-0.5, 0.5, SIDE)
        light = slope[:, None] * rng.normal() + slope[None] * rng.normal()
        picture = picture * (1 + rng.uniform(0, 0.8) * (light - rng.random() * light**2))[..., None]
    if rng.random() < 0.35:
        picture = np.repeat(picture.mean(2, keepdims=True), 3, 2)
    if rng.random() < 0.6:
        contrast = between(rng, 0.06, 1) if rng.random() < 0.4 else between(rng, 0.6, 2)
        centre = picture.mean((0, 1)) if rng.random() < 0.5 else 0.5
        picture = (picture - centre) * contrast + np.clip(centre + rng.normal(0, 0.15), 0, 1)
    if rng.random() < 0.3:
        picture = np.clip(picture, 0, 1) ** between(rng, 0.5, 2)
    if rng.random() < 0.4:  # of a sensor (each pixel and colour), or of a film (grey, coarser)
        grain = rng.normal(size=(SIDE, SIDE, 3 if rng.random() < 0.5 else 1))
        if rng.random() < 0.3:
            grain = ndimage.gaussian_filter(grain, (0.7, 0.7, 0)) * 2.5
        picture = picture + grain * between(rng, 0.003, 0.08)
    taken = (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)
    if rng.random() < 0.15:
        file = io.BytesIO()
        Image.fromarray(taken).save(file, "JPEG", quality=int(rng.integers(50, 95)))
        taken = np.asarray(Image.open(file))
    return taken


def draw_block(number: int, seed: int, files: Sequence[Path]) -> np.ndarray:
    """Draw one block of pictures from a dozen photographs, of as many folders, and fields.

    Parameters
    ----------
    number : int
        Of the block.
    seed : int
        Of the pool.
    files : sequence of Path
        Photographs to choose from; without any, all pictures are drawn.

    Returns
    -------
    ndarray of uint8, shape (64, 224, 224, 3)
    """
    rng = np.random.default_rng((seed, number))
    folders = {}
    for file in files:
        folders.setdefault(file.parent, []).append(file)
    photos = []
    for _ in range(12 if files else 0):
        among = list(folders.values())[rng.integers(len(folders))]
        file = among[rng.integers(len(among))]
        with Image.open(file) as image:
            photos.append(image.convert("RGB"))
    kinds = rng.choice([noise, cells, weave], size=14, p=[0.5, 0.25, 0.25])
    fields = [kind(rng) for kind in kinds]

    def surface() -> np.ndarray:
        if photos and rng.random() < 0.6:
            return crop(photos[rng.integers(len(photos))], rng)
        return colours(fields, rng)

    def plain() -> np.ndarray:
        return np.broadcast_to(rng.random(3) if rng.random() < 0.3 else rng.random(), (1, 1, 3))

    def one() -> np.ndarray:
        picture = surface()
        if rng.random() < 0.2:  # a part on a flat ground, with a bright or dark rim
            part, ground = silhouette(rng), plain()
            picture = picture * part + ground * (1 - part)
            if rng.random() < 0.5:
                rim = part - ndimage.gaussian_filter(part, (between(rng, 0.7, 8),) * 2 + (0,))
                picture = picture + rim * rng.normal(0, 0.7)
        if rng.random() < 0.4:  # a defect
            where = mask(rng, fields) * between(rng, 0.1, 1)
            picture = (
                picture * (1 - where) + (surface() if rng.random() < 0.35 else plain()) * where
            )
        return photographed(picture, rng)

    return np.stack([one() for _ in range(BLOCK)])


def draw_pool(file: Path, blocks: int, seed: int, files: Sequence[Path], workers: int) -> None:
    """Draw a pool of pictures into a .npy file, uint8, (64 x blocks, 224, 224, 3).

    The file takes its name when it is complete.
    """
    shape = (blocks * BLOCK, SIDE, SIDE, 3)
    part = file.with_suffix(".part")
    pool = np.lib.format.open_memmap(part, "w+", np.uint8, shape)
    draw = partial(draw_block, seed=seed, files=files)
    with multiprocessing.get_context("spawn").Pool(workers) as processes:
        for number, block in enumerate(processes.imap(draw, range(blocks))):
            pool[number * BLOCK : (number + 1) * BLOCK] = block
    pool.flush()
    os.replace(part, file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pool", type=Path, help="file to write (.npy)")
    parser.add_argument("--blocks", type=int, default=300, help="of 64 pictures, 9.6 MB each")
    parser.add_argument("--pictures", type=Path, help="folder of free photographs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    options = parser.parse_args()
    files = photographs(options.pictures)
    draw_pool(options.pool, options.blocks, options.seed, files, options.workers)


if __name__ == "__main__":
    main()
