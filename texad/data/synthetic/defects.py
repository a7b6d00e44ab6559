"""Defects, drawn as the physical things they are, on a piece of material.

Every function takes the surface, the severity in (0, 1] and a random generator, and returns the
colour of the damaged surface. A more severe defect is larger and stands out more. Place, shape and
colour are random.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from texad.data.synthetic.textures import (
    UNITS,
    Mesh,
    Surface,
    coordinates,
    noise,
    rotate,
    step,
    with_colour,
)

Random = np.random.Generator


def _grow(severity: float, low: float, high: float) -> float:
    """A size or strength between `low` (hardly there) and `high` (obvious)."""
    return low + (high - low) * severity


def _place(rng: Random, margin: float = 45) -> np.ndarray:
    return rng.uniform(margin, UNITS - margin, 2)


def _around(rng: Random, size: int, margin: float = 45) -> tuple[np.ndarray, np.ndarray]:
    """Position of every pixel relative to a random place, x and y."""
    x, y = np.asarray(coordinates(size)) - _place(rng, margin)[:, None, None]
    return x, y


def _one_of(rng: Random, *colours: tuple[float, float, float]) -> np.ndarray:
    return rng.choice(np.array(colours, dtype=np.float32))


def _blend(colour: np.ndarray, alpha: np.ndarray, new: np.ndarray | float) -> np.ndarray:
    """Lay `new` over `colour`, with opacity `alpha` of shape (size, size)."""
    return colour + alpha[..., None] * (np.asarray(new, dtype=np.float32) - colour)


def _shade(colour: np.ndarray, change: np.ndarray) -> np.ndarray:
    """Make the surface brighter (positive) or darker (negative)."""
    return colour * (1 + change[..., None])


def _bump(values: np.ndarray, middle: float | np.ndarray, width: float) -> np.ndarray:
    """A Gaussian: 1 in the middle, and 1/e at the distance `width` from it."""
    return np.exp(-(((values - middle) / width) ** 2))


def blob(
    rng: Random, size: int, radius: float, *, rough: float = 0.25, stretch: float = 1.4
) -> np.ndarray:
    """Depth inside an irregular round shape, in units: 0 at its edge, negative outside."""
    u, v = rotate(*_around(rng, size), rng.uniform(0, np.pi))
    ratio = np.sqrt(rng.uniform(1, stretch))
    u, v = u / ratio, v * ratio
    theta = np.arctan2(v, u)
    edge = 1 + sum(
        rough / order * rng.uniform(0.3, 1) * np.cos(order * theta + rng.uniform(0, 2 * np.pi))
        for order in (2, 3, 5, 7)
    )
    return radius * edge - np.hypot(u, v)


def curve(
    rng: Random,
    length: float,
    bend: float,
    start: np.ndarray | None = None,
    heading: float | None = None,
) -> np.ndarray:
    """Points (n, 2), half a unit apart, along a line that turns by about `bend` radians."""
    heading = rng.uniform(0, 2 * np.pi) if heading is None else heading
    turns = ndimage.gaussian_filter1d(rng.normal(0, 1, max(int(2 * length), 4) + 40), 20)[20:-20]
    turns *= bend / max(np.abs(np.cumsum(turns)).max(), 1e-9)
    headings = heading + np.cumsum(turns)
    points = np.cumsum(np.stack([np.cos(headings), np.sin(headings)], axis=1), axis=0) * 0.5
    return points - points.mean(axis=0) + _place(rng, 50) if start is None else points + start


def stroke(size: int, points: np.ndarray, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Where pixels lie beside a line.

    Returns
    -------
    aside : ndarray, shape (size, size)
        Distance from the line in units, negative on its left; 1e3 beyond `reach`.
    position : ndarray, shape (size, size)
        Along the line, 0 at its start and 1 at its end, and beyond `reach`.
    """
    pixels = np.stack(coordinates(size), axis=2)
    distance, index = cKDTree(points).query(pixels, distance_upper_bound=reach)
    index = np.minimum(index, len(points) - 1)  # beyond reach, it is one more
    tangent, offset = np.gradient(points, axis=0)[index], pixels - points[index]
    is_left = tangent[..., 0] * offset[..., 1] - tangent[..., 1] * offset[..., 0] < 0
    aside = np.where(np.isfinite(distance), np.where(is_left, -distance, distance), 1e3)
    return aside.astype(np.float32), (index / (len(points) - 1)).astype(np.float32)


def line(aside: np.ndarray, width: float | np.ndarray, soft: float = 1.0) -> np.ndarray:
    """Opacity of a line `width` units wide."""
    return step(width / 2 + soft / 2 - np.abs(aside), 0, soft)


def _taper(position: np.ndarray) -> np.ndarray:
    """Thickness along a line that thins out towards both ends."""
    return np.sqrt(np.clip(4 * position * (1 - position), 0, 1))


# -- things that colour the surface ----------------------------------------------------------------


def stain(surface: Surface, severity: float, rng: Random) -> np.ndarray:
    """Dye that has soaked in: the texture stays visible, in another colour."""
    soaked = step(blob(rng, surface.size, _grow(severity, 11, 20)), -1.5, 2.5)
    dye = _one_of(
        rng,
        (1.05, 0.45, 0.45),
        (0.45, 0.65, 1.1),
        (0.45, 1.05, 0.5),
        (0.9, 0.45, 1.05),
        (1.1, 0.85, 0.2),
    )
    alpha = soaked * _grow(severity, 0.5, 0.9) * (1 + 0.1 * noise(rng, surface.size, 3))
    return surface.colour * (1 - alpha[..., None] * (1 - dye))


def oil(surface: Surface, severity: float, rng: Random) -> np.ndarray:
    """A translucent dark blot with a soft edge, soaked in further here and there."""
    soaked = step(
        blob(rng, surface.size, _grow(severity, 13, 22), rough=0.35)
        + 1.5 * noise(rng, surface.size, 4),
        -3,
        5,
    )
    absorbed = np.array((0.36, 0.52, 0.90), np.float32)
    return surface.colour * (1 - (soaked * _grow(severity, 0.36, 0.46))[..., None] * absorbed)


def liquid(surface: Surface, severity: float, rng: Random) -> np.ndarray:
    """Spilt water, wine or cleaner: soaked in, dark at the rim where it dries, with some drops."""
    absorbed = _one_of(rng, (0.3, 0.6, 1.1), (0.1, 0.95, 0.6), (0.95, 0.4, 0.15))
    colour = surface.colour
    for radius in (_grow(severity, 9, 14), *rng.uniform(3, 6, rng.integers(1, 4))):
        depth = blob(rng, surface.size, radius, stretch=2.0)
        soaked = 0.75 * step(depth, -1, 2) + 0.5 * _bump(depth, 1, 1.5)
        colour = colour * (1 - (_grow(severity, 0.40, 0.60) * soaked)[..., None] * absorbed)
    return colour


def glue(
    surface: Surface, severity: float, rng: Random, largest: float = 14, milk: float = 0.3
) -> np.ndarray:
    """A drop of glue: milky, it fills the texture, and its dome shines on the side of the light."""
    size, radius = surface.size, _grow(severity, 0.55 * largest, largest)
    return _glossy(surface, severity, milk, blob(rng, size, radius, rough=0.3, stretch=2.2))


def glue_strip(surface: Surface, severity: float, rng: Random) -> np.ndarray:
    """A straight strip of glue left by a piece of tape."""
    u, v = rotate(*_around(rng, surface.size, 60), rng.uniform(0, np.pi))
    length, width = _grow(severity, 50, 110) * rng.uniform(0.85, 1.15), _grow(severity, 6, 11)
    ragged = 0.8 * noise(rng, surface.size, 3)
    depth = np.minimum(width / 2 - np.abs(v), length / 2 - np.abs(u)) + ragged
    gloss = _bump(v, 0.15 * width, 0.16 * width) * step(depth, 0, 2) * (1 + 0.3 * ragged)
    return (
        _glossy(surface, severity, 0.65, depth) + (_grow(severity, 0.14, 0.30) * gloss)[..., None]
    )


def _glossy(surface: Surface, severity: float, milk: float, depth: np.ndarray) -> np.ndarray:
    """A clear film `depth` units inside its edge: it smooths, lightens and shines."""
    pixels = surface.size / UNITS
    cover = step(depth, -0.7, 1.2)
    smooth = ndimage.gaussian_filter(surface.colour, (2.0 * pixels, 2.0 * pixels, 0))
    film = (1 - milk) * smooth + milk * np.array((0.92, 0.82, 0.42), np.float32)
    dome = ndimage.gaussian_filter(np.sqrt(np.clip(depth, 0, 6)), 1.2 * pixels)
    slope_y, slope_x = np.gradient(dome, 1 / pixels)
    shine = np.clip(-slope_x - slope_y - 0.12, -0.2, 1) * _grow(severity, 0.3, 0.4)
    return (
        _blend(surface.colour, cover * _grow(severity, 0.45, 0.95), film)
        + (cover * shine)[..., None]
    )


def gray_stroke(surface: Surface, severity: float, rng: Random) -> np.ndarray:
    """One stroke of a brush with grey paint: streaks along the stroke, fading towards its end."""
    width = _grow(severity, 6, 10)
    aside, position = stroke(surface.size, curve(rng, _grow(severity, 35, 65), 0.7), width)
    bristles = ndimage.gaussian_filter1d(rng.normal(0, 1, 64), 0.7)
    streak = bristles[np.clip(aside / width * 40 + 32, 0, 63).astype(int)]
    paint = step(1.3 + 0.5 * streak - 1.3 * position + 0.3 * noise(rng, surface.size, 1.5), 0, 0.7)
    return _blend(
        surface.colour,
        line(aside, width) * paint * _grow(severity, 0.75, 1.0),
        rng.choice([0.25, 0.82, 0.92])
        * (1 + 0.04 * streak[..., None])
        * np.array((0.95, 0.99, 1.04), np.float32),
    )


# -- things that lie on the surface ----------------------------------------------------------------


def thread(surface: Surface, severity: float, rng: Random, thickest: float = 3.8) -> np.ndarray:
    """A loose coloured fibre: twisted, round, with a shadow beside it."""
    width = _grow(severity, 0.55 * thickest, thickest)
    points = curve(rng, _grow(severity, 50, 130), rng.uniform(1.0, 3.0))
    dye = _one_of(
        rng,
        (0.85, 0.83, 0.78),
        (0.15, 0.17, 0.35),
        (0.62, 0.16, 0.14),
        (0.10, 0.10, 0.10),
        (0.70, 0.58, 0.25),
    )
    shadow, _ = stroke(surface.size, points + 1.3, width + 3)
    colour = _shade(surface.colour, -_grow(severity, 0.15, 0.45) * line(shadow, width, 2.5))
    aside, position = stroke(surface.size, points, width + 3)
    across = np.clip(aside / (width / 2), -1, 1)
    light = (
        0.55
        + 0.55 * np.sqrt(1 - across**2)
        + 0.12 * np.sin(position * len(points) / 2 * 2.2 + 1.5 * across)  # the twist
    )
    return _blend(colour, line(aside, width) * _grow(severity, 0.55, 1.0), dye * light[..., None])


def metal(surface: Surface, severity: float, rng: Random, largest: float = 8.5) -> np.ndarray:
    """A chip of metal: an angular, curved piece that mirrors the light and casts a shadow."""
    radius, strength = _grow(severity, 0.5 * largest, largest), _grow(severity, 0.55, 1.0)
    u, v = rotate(*_around(rng, surface.size), rng.uniform(0, np.pi))
    v = v - rng.uniform(-0.03, 0.03) * u**2
    corners = np.sort(rng.uniform(0, 2 * np.pi, 3) + np.array([0, 2.1, 4.2]))
    reach = radius * rng.uniform(0.7, 1.2, 3)

    def inside(du: float, dv: float) -> np.ndarray:
        planes = [
            r - (u - du) * np.cos(a) / 1.7 - (v - dv) * np.sin(a) * 1.3
            for a, r in zip(corners, reach, strict=True)
        ]
        return np.min([*planes, 1.6 * radius - np.hypot(u - du, v - dv)], axis=0)

    waves = rng.uniform(0.7, 1.1) * v / radius * np.pi + 0.15 * u + rng.uniform(0, 2 * np.pi)
    glint = _bump(v / radius, rng.uniform(-0.3, 0.3), 0.18)
    tone = np.clip(0.25 + 0.5 * (0.5 + 0.45 * np.sin(waves)) + 0.6 * glint, 0, 1.15)
    return _blend(
        _shade(surface.colour, -0.45 * strength * step(inside(1.2, 1.6), -1.5, 1.0)),
        step(inside(0, 0), -0.4, 0.6) * strength,
        tone[..., None] * np.array((0.97, 1.0, 1.03), np.float32),
    )


# -- things that break the surface -----------------------------------------------------------------


def cut(surface: Surface, severity: float, rng: Random) -> np.ndarray:
    """A slit made by a blade: dark inside, with one lip that stands up and catches the light."""
    width = _grow(severity, 2.3, 3.8)
    aside, position = stroke(surface.size, curve(rng, _grow(severity, 30, 62), 0.4), width + 5)
    thickness = width * _taper(position)
    lip = _bump(aside - thickness / 2, 1.2, 1.0) * _taper(position)
    return _blend(
        _shade(surface.colour, _grow(severity, 0.2, 0.6) * lip),
        line(aside + 0.35 * noise(rng, surface.size, 0.8), thickness) * _grow(severity, 0.45, 0.75),
        surface.colour.mean((0, 1)) * 0.18,
    )


def hole(surface: Surface, severity: float, rng: Random, largest: float = 8) -> np.ndarray:
    """A hole: dark, darkest under the edge on the side of the light, with frayed edges."""
    depth = blob(rng, surface.size, _grow(severity, 0.5 * largest, largest), rough=0.3, stretch=1.8)
    return _blend(
        _shade(surface.colour, _grow(severity, 0.15, 0.4) * _bump(depth, -1.2, 1.1)),
        step(depth + 0.7 * noise(rng, surface.size, 1.0), -0.6, 0.8) * _grow(severity, 0.55, 0.85),
        surface.colour.mean((0, 1)) * (0.22 + 0.04 * noise(rng, surface.size, 2.5)[..., None]),
    )


def poke(surface: Surface, severity: float, rng: Random) -> np.ndarray:
    """A dent left by a blunt needle: a pit, dark towards the light and bright on the far side."""
    radius = _grow(severity, 6.0, 11.0)
    x, y = _around(rng, surface.size)
    u, v = rotate(x, y, rng.uniform(0, np.pi))
    ring = np.hypot(u, v * rng.uniform(1.0, 1.3)) / radius
    slope = (x + y) / radius * np.exp(-(ring**2)) * _grow(severity, 0.3, 0.42)
    return _shade(
        _shade(surface.colour, slope), -step(-ring, -0.9, -0.4) * _grow(severity, 0.5, 0.68)
    )


def fold(surface: Surface, severity: float, rng: Random) -> np.ndarray:
    """A long crease: a soft ridge, bright on one side and dark behind, with a sharp line."""
    width = _grow(severity, 3.2, 4.5)
    aside, position = stroke(surface.size, curve(rng, _grow(severity, 60, 150), 0.5), 3 * width)
    across = np.clip(aside, -99, 99) / width
    ridge = -0.8 * across * _bump(across, 0, 1) - 0.55 * _bump(across, 0.5, 1)
    return _shade(
        surface.colour,
        (ridge * _grow(severity, 0.30, 0.36) - _bump(aside, 0, 1.1) * _grow(severity, 0.3, 0.5))
        * _taper(position),
    )


def crack(surface: Surface, severity: float, rng: Random) -> np.ndarray:
    """A crack in stone: thin, dark, jagged, with a branch or two."""
    colour, heading = surface.colour, rng.uniform(0, 2 * np.pi)
    main = curve(rng, _grow(severity, 45, 120), 0.6, heading=heading)
    lines = [(main, _grow(severity, 1.6, 2.4))]
    for _ in range(rng.integers(1, 3)):
        start = main[rng.integers(len(main) // 4, 3 * len(main) // 4)]
        aslant = heading + rng.choice([-1, 1]) * rng.uniform(0.4, 1.0)
        lines.append(
            (
                curve(rng, _grow(severity, 10, 35), 0.5, start, aslant),
                _grow(severity, 1.2, 2.4),
            )
        )
    for points, width in lines:
        jagged = points + ndimage.gaussian_filter1d(rng.normal(0, 3.0, points.shape), 2.5, axis=0)
        aside, position = stroke(surface.size, jagged, width + 4)
        chipped = line(aside - width, 1.2) * (1 - position) * _grow(severity, 0.1, 0.35)
        dark = line(aside, width * (1.15 - 0.8 * position)) * _grow(severity, 0.45, 0.68)
        colour = _blend(_shade(colour, chipped), dark, 0.10)
    return colour


def rough(surface: Surface, severity: float, rng: Random) -> np.ndarray:
    """A patch whose polish is gone: coarse pits and bumps in place of the smooth grain."""
    patch = step(blob(rng, surface.size, _grow(severity, 12, 22)), -2, 2)
    relief = noise(rng, surface.size, 1.6)
    slope = ndimage.sobel(relief, axis=0) + ndimage.sobel(relief, axis=1)
    slope *= _grow(severity, 0.18, 0.26) / slope.std()
    blur = 1.2 * surface.size / UNITS
    dull = _shade(ndimage.gaussian_filter(surface.colour, (blur, blur, 0)), slope)
    return _blend(surface.colour, patch * _grow(severity, 0.75, 1.0), dull)


def scratch(surface: Surface, severity: float, rng: Random) -> np.ndarray:
    """One to three nearly straight scratches: a dark groove with a bright edge."""
    colour, heading, middle = surface.colour, rng.uniform(0, 2 * np.pi), _place(rng, 60)
    for _ in range(rng.integers(1, 4)):
        length = _grow(severity, 30, 90) * rng.uniform(0.7, 1.1)
        aslant = heading + rng.normal(0, 0.12)
        half = 0.5 * length * np.array([np.cos(aslant), np.sin(aslant)])
        points = curve(rng, length, 0.15, middle + rng.normal(0, 6, 2) - half, aslant)
        aside, position = stroke(surface.size, points, 6)
        width = _grow(severity, 1.5, 3.0) * _taper(position)
        bright = line(aside - width, width) * _grow(severity, 0.15, 0.3)
        colour = _shade(_shade(colour, bright), -line(aside, width) * _grow(severity, 0.34, 0.48))
    return colour


def combined(surface: Surface, severity: float, rng: Random) -> np.ndarray:
    """Two different defects on one piece."""
    for kind in rng.permutation(4)[:2]:
        damage = (stain, hole, liquid, scratch)[kind]
        surface = with_colour(surface, damage(surface, 0.65 * severity, rng))
    return surface.colour


# -- wires -----------------------------------------------------------------------------------------


def _at_wire(surface: Surface, rng: Random) -> tuple[Mesh, np.ndarray, np.ndarray]:
    """The wires, and the distance of every pixel from a random place on one of the first set.

    Across and along that wire, in spacings.
    """
    mesh = surface.mesh
    assert mesh is not None  # these are defects of a grid
    x, y = (_place(rng, 60) * surface.size / UNITS).astype(int)
    return mesh, mesh.first - np.round(mesh.first[y, x]), mesh.second - mesh.second[y, x]


def bent(
    surface: Surface, severity: float, rng: Random, least: float = 0.55, dull: float = 0.15
) -> np.ndarray:
    """A wire pushed aside, its neighbours with it: a wide opening beside a narrow one."""
    mesh, across, along = _at_wire(surface, rng)
    bump = np.exp(-((across / 1.5) ** 2) - (along / _grow(severity, 1.3, 3.0)) ** 2)
    return mesh.draw(
        offset=rng.choice([-1, 1]) * _grow(severity, least, 1.3) * bump,
        shine=_grow(severity, dull, 0.4) * step(bump, 0.3, 1.0),
    )


def broken(
    surface: Surface, severity: float, rng: Random, least: float = 1.0, dull: float = 0.3
) -> np.ndarray:
    """A piece is missing from a wire, or from several side by side; the ends stand out of line."""
    mesh, across, along = _at_wire(surface, rng)
    count = 1 + int(severity * rng.uniform(1.5, 4.0))
    missing = np.abs(across - (count - 1) / 2) < count / 2
    from_end = np.abs(along + 0.25 * np.sin(2 * np.round(across))) - _grow(severity, least, 3.0)
    askew = 0.2 * np.sign(along) * _bump(from_end, 0, 0.5) * missing
    return mesh.draw(
        offset=_grow(severity, 0.3, 1.0) * askew,
        present=~(missing & (from_end < 0)),
        shine=_grow(severity, dull, 0.8) * _bump(from_end, 0, 0.4) * missing,
    )


DEFECTS: dict[str, dict[str, Callable[[Surface, float, Random], np.ndarray]]] = {
    "carpet": {
        "color": stain,
        "cut": cut,
        "hole": hole,
        "metal_contamination": metal,
        "thread": thread,
    },
    # chips and drops are larger on the mesh: a small one would hang between two wires
    "grid": {
        "bent": bent,
        "broken": broken,
        "glue": partial(glue, largest=22, milk=0.5),
        "metal_contamination": partial(metal, largest=12),
        "thread": partial(thread, thickest=5.2),
    },
    "leather": {"color": stain, "cut": cut, "fold": fold, "glue": glue, "poke": poke},
    "tile": {
        "crack": crack,
        "glue_strip": glue_strip,
        "gray_stroke": gray_stroke,
        "oil": oil,
        "rough": rough,
    },
    "wood": {
        "color": stain,
        "combined": combined,
        "hole": partial(hole, largest=7),
        "liquid": liquid,
        "scratch": scratch,
    },
}
