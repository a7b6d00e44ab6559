"""Five materials, drawn from random numbers.

Each function makes one piece of its material, seen from above in even light: its reflectance, a
number from 0 to 1 a colour and pixel. What a photograph adds (light, contrast, blur, noise) comes
later, in `camera`.

Lengths are in units of 1/256 of the image's side, so an image of another size shows the same piece
of material.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy import fft, ndimage

UNITS = 256.0  # along one side of the image


@dataclass(frozen=True)
class Surface:
    """A piece of material.

    Attributes
    ----------
    colour : ndarray, float32, shape (size, size, 3)
        Reflectance, nominally in [0, 1].
    angle : float
        Direction of the threads, wires or grain, in radians from the x axis.
    contrast_spread : float
        How far the contrast of photographs of the material spreads, as a fraction: a relief looks
        deep or shallow depending on the lamp; printed or woven colours change less.
    mesh : Mesh or None
        The wires, for a grid: a bent wire has to be drawn anew.
    """

    colour: np.ndarray
    angle: float
    contrast_spread: float
    mesh: "Mesh | None" = None

    @property
    def size(self) -> int:
        return len(self.colour)


def coordinates(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Position of every pixel in units: x to the right, y down, each (size, size), float32."""
    line = (np.arange(size, dtype=np.float32) + 0.5) * np.float32(UNITS / size)
    return tuple(np.meshgrid(line, line))


def rotate(x: np.ndarray, y: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates along and across a direction."""
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return x * cos + y * sin, y * cos - x * sin


def noise(
    rng: np.random.Generator,
    size: int,
    along: float,
    across: float | None = None,
    angle: float = 0.0,
) -> np.ndarray:
    """Gaussian noise with a grain: mean 0, deviation 1, blurred by `along` and `across` units.

    White noise is filtered in the frequency domain, so that the grain may lie in any direction at
    the same cost.

    Returns
    -------
    ndarray, float32, shape (size, size)
    """
    across = along if across is None else across
    parallel, normal = rotate(
        fft.rfftfreq(size).astype(np.float32), fft.fftfreq(size).astype(np.float32)[:, None], angle
    )
    pixels = size / UNITS
    exponent = (along * pixels * parallel) ** 2 + (across * pixels * normal) ** 2
    spectrum = fft.rfft2(rng.standard_normal((size, size), dtype=np.float32)) * np.exp(
        -2 * np.pi**2 * exponent, dtype=np.float32
    )
    spectrum[0, 0] = 0
    blurred = fft.irfft2(spectrum, s=(size, size))
    return (blurred / blurred.std()).astype(np.float32)


def step(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """A smooth step: 0 below `low`, 1 above `high`."""
    ramp = np.clip((values - low) / (high - low), 0, 1)
    return ramp * ramp * (3 - 2 * ramp)


def _paint(tone: np.ndarray, rgb: tuple[float, float, float]) -> np.ndarray:
    return (tone[..., None] * np.asarray(rgb, dtype=np.float32)).astype(np.float32)


def carpet(rng: np.random.Generator, size: int, scale: float = 1.0) -> Surface:
    """Grey woven carpet: two sets of yarn, each in turn on top of the other."""
    angle = float(np.radians(rng.uniform(-3, 3)))
    x, y = coordinates(size)
    along, across = rotate(x + 0.8 * noise(rng, size, 30), y + 0.8 * noise(rng, size, 30), angle)
    pitch = 5.0 * scale
    u, v = along / pitch + rng.uniform(0, 9), across / (0.9 * pitch) + rng.uniform(0, 9)
    i, j = np.floor(u).astype(int), np.floor(v).astype(int)
    bump_u, bump_v = np.cos(np.pi * (u - i - 0.5)), np.cos(np.pi * (v - j - 0.5))
    on_top = (i + 2 * j) % 4 < 2  # a twill: over two, under two, shifted from row to row
    relief = np.where(on_top, bump_u * (0.55 + 0.45 * bump_v), bump_v * (0.55 + 0.45 * bump_u))
    yarn = rng.normal(0, 0.03, (128, 128))[i % 128, j % 128] + rng.normal(0, 0.012, 128)[j % 128]
    fibre = np.where(on_top, noise(rng, size, 0.5, 1.6, angle), noise(rng, size, 1.6, 0.5, angle))
    tone = np.where(on_top, 0.53, 0.48) * (0.76 + 0.34 * relief) * (1 + yarn + 0.04 * fibre)
    return Surface(
        _paint(tone * (1 + 0.012 * noise(rng, size, 14)), (1.0, 1.0, 1.02)),
        angle,
        contrast_spread=0.09,
    )


@dataclass(frozen=True)
class Mesh:
    """Two crossing sets of wires, woven over and under each other.

    Attributes
    ----------
    first, second : ndarray, float32, shape (size, size)
        Position across the first and the second set, in spacings: wires lie at the whole numbers.
    spacing, radius : float
        Between wires, and of a wire, in units.
    ground : ndarray, float32, shape (size, size)
        What is seen through the openings.
    grain : ndarray, float32, shape (size, size)
        The finish of the metal.
    """

    first: np.ndarray
    second: np.ndarray
    spacing: float
    radius: float
    ground: np.ndarray
    grain: np.ndarray

    def draw(
        self,
        offset: np.ndarray | float = 0.0,
        present: np.ndarray | bool = True,
        shine: np.ndarray | float = 0.0,
    ) -> np.ndarray:
        """Reflectance of the mesh; the wires of the first set may be damaged.

        Parameters
        ----------
        offset : ndarray, optional
            How far they are pushed aside, in spacings, given for every pixel.
        present : ndarray of bool, optional
            False where they are missing.
        shine : ndarray, optional
            Extra brightness, where a wire is tilted and mirrors the lamp, or is torn and its fresh
            metal shows.

        Returns
        -------
        ndarray, float32, shape (size, size, 3)
        """
        cover, shade, height = self._wires(self.first - offset, self.second, 1)
        cover, shade = cover * present, shade + shine
        other_cover, other_shade, other_height = self._wires(self.second, self.first, -1)
        shadow = ndimage.shift(
            np.maximum(cover, other_cover),
            1.4 * len(self.ground) / UNITS,
            order=1,
            mode="nearest",
        )
        tone = self.ground * (1 - 0.25 * shadow)
        over = height >= other_height
        for alpha, brightness in (
            (cover * ~over, shade),
            (other_cover * over, other_shade),
            (cover * over, shade),
            (other_cover * ~over, other_shade),
        ):
            tone = tone + alpha * (brightness - tone)
        return _paint(tone, (1.0, 1.0, 1.0))

    def _wires(
        self, across: np.ndarray, along: np.ndarray, parity: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Coverage, brightness and height of one set of wires."""
        index = np.round(across)
        # In radii from the middle of the wire.
        distance = (across - index) * (self.spacing / self.radius)
        level = parity * np.cos(np.pi * along) * np.where(index % 2 == 0, 1, -1)
        edge = 0.7 / self.radius
        dome = np.sqrt(np.clip(1 - distance**2, 0, 1))
        shine = np.exp(-(((distance + 0.35) / 0.3) ** 2))
        shade = (0.38 + 0.10 * dome + 0.10 * shine) * (1 + 0.07 * level) * (1 + 0.05 * self.grain)
        return step(-np.abs(distance), -1 - edge / 2, -1 + edge / 2), shade, level


def grid(rng: np.random.Generator, size: int, scale: float = 1.0) -> Surface:
    """Woven wire mesh with diamond openings, over a dark ground."""
    turn, half_opening = np.radians(rng.uniform(-2, 2)), np.radians(rng.uniform(39, 41))
    x, y = coordinates(size)
    sway = 0.3 * noise(rng, size, 40)
    spacing = np.float32(11.5 * scale)
    mesh = Mesh(
        first=(rotate(x, y, turn + half_opening)[1] + sway) / spacing
        + np.float32(rng.uniform(0, 8)),
        second=(rotate(x, y, turn - half_opening)[1] - sway) / spacing
        + np.float32(rng.uniform(0, 8)),
        spacing=11.5 * scale,
        radius=2.0 * scale,
        ground=(0.34 + 0.012 * noise(rng, size, 1.2) + 0.008 * noise(rng, size, 20)).astype(
            np.float32
        ),
        grain=noise(rng, size, 0.8),
    )
    return Surface(mesh.draw(), float(turn + half_opening), contrast_spread=0.07, mesh=mesh)


def leather(rng: np.random.Generator, size: int, scale: float = 1.0) -> Surface:
    """Brown leather: pebbles of uneven size with creases between them, lit from one side."""
    pixels = size / UNITS
    spacing = 5.6 * scale * pixels
    count = int(np.ceil(size / spacing)) + 1
    centres = np.indices((count, count)) + rng.uniform(-0.45, 0.45, (2, count, count))
    between = np.ones((size, size), dtype=bool)
    between[tuple(np.clip(np.round(centres * spacing), 0, size - 1).astype(int))] = False
    distance, nearest = ndimage.distance_transform_edt(between, return_indices=True)
    pebble_tone = rng.normal(0, 1, (size, size)).astype(np.float32)[tuple(nearest)]
    height = -((distance / spacing) ** 2) * 2.2 + 0.10 * noise(rng, size, 0.9)
    smooth = ndimage.gaussian_filter(height.astype(np.float32), 0.75 * pixels)
    height = smooth + 0.05 * noise(rng, size, 9)
    slope_y, slope_x = np.gradient(height, 1 / pixels)
    direction = rng.uniform(-2.6, -2.0)  # light from the upper left
    lit = np.cos(direction) * slope_x + np.sin(direction) * slope_y
    tone = (1 + 0.35 * lit + 0.16 * (height - height.mean())) * (
        1 + 0.02 * pebble_tone + 0.015 * noise(rng, size, 24)
    )
    return Surface(
        _paint(np.clip(tone, 0.1, 2), (0.50, 0.335, 0.235)),
        float(rng.uniform(0, np.pi)),
        contrast_spread=0.15,
    )


def tile(rng: np.random.Generator, size: int, scale: float = 1.0) -> Surface:
    """Grey-beige stone: flecks of several sizes and minerals in a fine paste."""
    angle = float(rng.uniform(0, np.pi))
    colour = _paint(0.62 + 0.008 * noise(rng, size, 16), (1.0, 0.97, 0.92))
    for grain, rarity, rgb in (  # of the minerals
        (1.9, 0.7, (0.54, 0.51, 0.48)),
        (1.5, 0.9, (0.70, 0.67, 0.62)),
        (1.1, 1.2, (0.43, 0.42, 0.41)),
        (0.8, 1.5, (0.78, 0.77, 0.74)),
    ):
        field = noise(rng, size, 1.25 * grain * scale, 0.85 * grain * scale, angle)
        alpha = (0.62 * step(field, rarity - 0.25, rarity + 0.25))[..., None]
        colour += alpha * (np.asarray(rgb, dtype=np.float32) - colour)
    colour *= (1 + 0.03 * noise(rng, size, 0.6))[..., None]
    return Surface(colour.astype(np.float32), angle, contrast_spread=0.13)


def wood(rng: np.random.Generator, size: int, scale: float = 1.0) -> Surface:
    """Brown wood: growth rings cut lengthwise, pores and fibres, all running nearly upright."""
    angle = float(np.pi / 2 + np.radians(rng.uniform(-3, 3)))
    x, y = coordinates(size)
    sway = 4.0 * noise(rng, size, 110, 14, angle) + 0.9 * noise(rng, size, 45, 4, angle)
    ring = (rotate(x, y, angle)[1] + sway) / (11.0 * scale) + rng.uniform(0, 99)
    number = np.floor(ring).astype(int)
    # A ring darkens slowly and ends abruptly.
    late = (ring - number) ** 3 * (1 - step(ring - number, 0.88, 1.0))
    strength = rng.uniform(0.5, 1.2, 512)[number % 512]
    tone = (
        1
        - 0.24 * strength * late
        + 0.045 * noise(rng, size, 14, 0.7, angle)  # fibres
        - 0.16 * step(noise(rng, size, 5, 0.6, angle), 1.7, 2.3)  # pores
    )
    colour = _paint(tone + 0.015 * noise(rng, size, 60, 12, angle), (0.66, 0.475, 0.32))
    colour[..., 2] *= 1 - 0.15 * late  # late wood is redder
    return Surface(colour, angle, contrast_spread=0.13)


TEXTURES: dict[str, Callable[[np.random.Generator, int, float], Surface]] = {
    "carpet": carpet,
    "grid": grid,
    "leather": leather,
    "tile": tile,
    "wood": wood,
}


def with_colour(surface: Surface, colour: np.ndarray) -> Surface:
    """The same piece of material in another colour."""
    return replace(surface, colour=colour.astype(np.float32))
