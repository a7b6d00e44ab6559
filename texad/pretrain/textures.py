"""Textures by the million: endless kinds of surfaces, drawn by a program, many at a time.

A texture is a *recipe*: which patterns it is made of, how they are joined, bent, coloured and lit, all drawn by lot. A recipe can be drawn as often as
one likes; each drawing shows another piece of the same surface, as another photograph of one carpet would. Everything is computed for a whole
batch at once, by the same few tensor operations on a processor or a graphics processor.

The patterns are those of the literature on textures, and none imitates a surface of the data set: noise with a chosen spectrum (Galerne, Gousseau and
Morel, "Random phase textures", IEEE Transactions on Image Processing 20, 2011), gratings, cells (Worley, "A cellular texture basis function", SIGGRAPH 1996),
dead leaves (Lee, Mumford and Huang, "Occlusion models for natural images", IJCV 41, 2001), weaves, grains and ridges.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace

import torch

PATTERNS = ("noise", "gratings", "cells", "leaves", "weave", "grains", "ridges")
LAYERS = 3  # patterns in a recipe; some count little
LEAVES = 48  # in a drawing
JOINTS = ("add", "multiply", "larger", "choose")


@dataclass
class Recipes:
    """What makes textures; each tensor has the batch first, and most have the layer second.

    Attributes
    ----------
    pattern : LongTensor, shape (N, L)
        Index into `PATTERNS`.
    weight : Tensor, shape (N, L)
        How much a layer counts.
    joint : LongTensor, shape (N, L)
        How it is joined to those before it: index into `JOINTS`.
    period : Tensor, shape (N, L)
        Size of the pattern's parts, in pixels.
    angle, stretch : Tensor, shape (N, L)
        Its direction, in radians, and how much longer than wide its parts are.
    shape : Tensor, shape (N, L, 6)
        Numbers from 0 to 1, read by each pattern in its own way.
    key : LongTensor, shape (N, L)
        Seed of what is random in a pattern, but belongs to the recipe.
    warp : Tensor, shape (N, 2)
        How far the surface is bent, in pixels, and over which distance.
    palette : Tensor, shape (N, 4, 3)
        Colours, from dark to light.
    light : Tensor, shape (N, 3)
        Relief, its direction, and the noise of the camera.
    """

    pattern: torch.Tensor
    weight: torch.Tensor
    joint: torch.Tensor
    period: torch.Tensor
    angle: torch.Tensor
    stretch: torch.Tensor
    shape: torch.Tensor
    key: torch.Tensor
    warp: torch.Tensor
    palette: torch.Tensor
    light: torch.Tensor

    def __len__(self) -> int:
        return len(self.pattern)

    def __getitem__(self, index: slice | torch.Tensor) -> "Recipes":
        return Recipes(**{field.name: getattr(self, field.name)[index] for field in fields(self)})


def cat(parts: Sequence[Recipes]) -> Recipes:
    """Recipes one after the other."""
    return Recipes(**{field.name: torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Recipes)})


def draw_recipes(n: int, generator: torch.Generator) -> Recipes:
    """Invent textures.

    Parameters
    ----------
    n : int
    generator : torch.Generator
        All that is drawn by lot comes from it, and is computed on its device.
    """
    device = generator.device

    def uniform(*shape: int, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator, device=device)

    def choice(k: int, *shape: int) -> torch.Tensor:
        return torch.randint(k, shape, generator=generator, device=device)

    weight = uniform(n, LAYERS) ** 2
    weight[:, 0] = 1
    base = uniform(n, 1, 3, low=0.1, high=0.9)  # a palette varies about one colour; a third of the textures are nearly grey
    grey = (uniform(n, 1, 1) < 0.35).float()
    base = grey * base.mean(-1, keepdim=True) + (1 - grey) * base
    spread = uniform(n, 1, 1, low=0.1, high=0.6)
    steps = torch.linspace(-1, 1, 4, device=device)[None, :, None]
    colourful = (1 - 0.9 * grey) * uniform(n, 1, 1) ** 2
    palette = (base + spread * (steps * 0.6 + colourful * uniform(n, 4, 3, low=-0.6, high=0.6))).clamp(0.02, 0.98)
    return Recipes(
        pattern=choice(len(PATTERNS), n, LAYERS),
        weight=weight,
        joint=choice(len(JOINTS), n, LAYERS),
        period=torch.exp(uniform(n, LAYERS, low=math.log(3.0), high=math.log(28.0))),
        angle=uniform(n, LAYERS, high=math.pi),
        stretch=torch.exp(uniform(n, LAYERS) ** 2 * math.log(5.0)),
        shape=uniform(n, LAYERS, 6),
        key=choice(2**31 - 1, n, LAYERS),
        warp=torch.stack([uniform(n) ** 3 * 6, uniform(n, low=12, high=60)], 1),
        palette=palette,
        light=torch.stack([uniform(n) ** 2 * 1.2, uniform(n, high=2 * math.pi), uniform(n, low=0.0, high=0.04)], 1),
    )


def vary(recipes: Recipes, amount: float, generator: torch.Generator) -> Recipes:
    """Relatives of textures: the same but for one thing, which is a little other: size, direction, form, colour or relief.

    Parameters
    ----------
    recipes : Recipes
    amount : float
        0 changes nothing; 0.5 is to be seen at a second look.
    generator : torch.Generator
    """
    n, device = len(recipes), generator.device
    which = torch.randint(5, (n,), generator=generator, device=device)
    sign = 2.0 * torch.randint(2, (n,), generator=generator, device=device) - 1
    much = amount * (0.5 + torch.rand(n, generator=generator, device=device)) * sign

    def part(i: int) -> torch.Tensor:
        return much * (which == i)

    shift = torch.rand((n, 1, 3), generator=generator, device=device) - 0.3
    other = torch.rand(recipes.shape.shape, generator=generator, device=device)
    mix = part(2).abs()[:, None, None].clamp(0, 1)
    return replace(
        recipes,
        period=recipes.period * torch.exp(part(0))[:, None],
        angle=recipes.angle + 1.5 * part(1)[:, None],
        shape=(1 - mix) * recipes.shape + mix * other,
        palette=(recipes.palette + 0.5 * part(3)[:, None, None] * shift).clamp(0.02, 0.98),
        light=torch.cat([(recipes.light[:, :1] + part(4)[:, None] * 1.5).abs(), recipes.light[:, 1:]], 1),
        key=torch.where((which == 2)[:, None], recipes.key + 1, recipes.key),
    )


# -- drawing ---------------------------------------------------------------------------------------


def draw(recipes: Recipes, size: int, generator: torch.Generator) -> torch.Tensor:
    """Draw each texture once, at a place of its own.

    Parameters
    ----------
    recipes : Recipes, length N
    size : int
        Height and width, in pixels.
    generator : torch.Generator

    Returns
    -------
    Tensor, float32, shape (N, 3, size, size)
        In [0, 1].
    """
    n, device = len(recipes), generator.device
    place = torch.randint(10_000, (n, 2), generator=generator, device=device).float()
    axis = torch.arange(size, device=device, dtype=torch.float32)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    bend = smooth_noise(n, size, recipes.warp[:, 1], generator, channels=2) * recipes.warp[:, 0, None, None, None]
    x = x + place[:, 0, None, None] + bend[:, 0]
    y = y + place[:, 1, None, None] + bend[:, 1]
    height = torch.zeros(n, size, size, device=device)
    for layer in range(recipes.pattern.shape[1]):
        field = torch.zeros_like(height)
        for i, name in enumerate(PATTERNS):
            chosen = (recipes.pattern[:, layer] == i).nonzero()[:, 0]
            if len(chosen):
                some = recipes[chosen]
                field[chosen] = _normal(_PATTERN[name](some, layer, x[chosen], y[chosen], generator))
        weight = recipes.weight[:, layer, None, None]
        if layer == 0:
            height = field
            continue
        joint = recipes.joint[:, layer, None, None]
        joined = torch.where(joint == 0, height + weight * field, height)
        joined = torch.where(joint == 1, height * (1 + weight * field), joined)
        joined = torch.where(joint == 2, torch.maximum(height, weight * field + 2 * weight - 2), joined)
        joined = torch.where(joint == 3, torch.where(height > 1 - weight, 0.5 * field, height), joined)
        height = _normal(joined)
    return _photograph(recipes, height, generator)


def _normal(field: torch.Tensor) -> torch.Tensor:
    """Mean 0 and standard deviation 1, of each image; limits on what is extreme."""
    mean, spread = field.mean((1, 2), keepdim=True), field.std((1, 2), keepdim=True)
    return ((field - mean) / (spread + 1e-3)).clamp(-3, 3)


def _photograph(recipes: Recipes, height: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Colour by height, light from one side, a lamp that is not quite even, and the noise of a camera."""
    n, size, _ = height.shape
    position = ((height + 2) / 4).clamp(0, 0.999) * 3  # on the palette
    lower = position.long()
    part = (position - lower)[:, None]
    rows = torch.arange(n, device=height.device)[:, None, None]
    first, second = (recipes.palette[rows, lower + i].permute(0, 3, 1, 2) for i in (0, 1))
    image = (1 - part) * first + part * second
    dy = torch.diff(height, dim=1, prepend=height[:, :1])
    dx = torch.diff(height, dim=2, prepend=height[:, :, :1])
    relief, direction, noise = (recipes.light[:, i, None, None] for i in range(3))
    shade = 1 + 0.35 * relief * (torch.cos(direction) * dx + torch.sin(direction) * dy).clamp(-2, 2)
    slope = 0.12 * (torch.rand(2, n, 1, 1, generator=generator, device=height.device) - 0.5)
    axis = torch.linspace(-1, 1, size, device=height.device)
    lamp = 1 + slope[0] * axis[None, None, :] + slope[1] * axis[None, :, None]
    image = image * (shade * lamp)[:, None]
    return (image + noise[:, None] * torch.randn(image.shape, generator=generator, device=height.device)).clamp(0, 1)


# -- patterns: (N, H, W) coordinates in, (N, H, W) heights out --------------------------------------


def _turned(recipes: Recipes, layer: int, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Coordinates along and across the pattern, in its periods."""
    angle = recipes.angle[:, layer, None, None]
    period = recipes.period[:, layer, None, None]
    cos, sin = torch.cos(angle), torch.sin(angle)
    return (cos * x + sin * y) / (period * recipes.stretch[:, layer, None, None]), (cos * y - sin * x) / period


def _hash(key: torch.Tensor, i: torch.Tensor, j: torch.Tensor, salt: int) -> torch.Tensor:
    """A number from 0 to 1 for each cell (i, j) of a plane: the same whenever it is asked for."""
    v = (i * 73856093) ^ (j * 19349663) ^ (key * 83492791) ^ (salt * 2654435761)
    v = v & 0xFFFFFFFF
    for _ in range(2):
        v = ((v ^ (v >> 15)) * 0x2C1B3C6D) & 0xFFFFFFFF
    return ((v ^ (v >> 16)) & 0xFFFFFF).float() / 2**24


def _spectral(n: int, size: int, filters: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    white = torch.randn(n, size, size, generator=generator, device=filters.device)
    return torch.fft.irfft2(torch.fft.rfft2(white) * filters, s=(size, size))


def _frequencies(size: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.fft.rfftfreq(size, device=device)[None, None, :], torch.fft.fftfreq(size, device=device)[None, :, None]


def smooth_noise(n: int, size: int, period: torch.Tensor, generator: torch.Generator, channels: int) -> torch.Tensor:
    """Soft hills and valleys of about `period` (N) pixels, mean 0 and standard deviation 1: (N, channels, size, size)."""
    fx, fy = _frequencies(size, period.device)
    filters = torch.exp(-0.5 * ((fx**2 + fy**2).sqrt() * period[:, None, None]) ** 2)
    fields = [_normal(_spectral(n, size, filters, generator)) for _ in range(channels)]
    return torch.stack(fields, 1)


def _spectrum(recipes: Recipes, layer: int, size: int) -> torch.Tensor:
    """A ring or a cloud in the plane of frequencies, stretched in one direction."""
    fx, fy = _frequencies(size, recipes.period.device)
    angle = recipes.angle[:, layer, None, None]
    along = (torch.cos(angle) * fx + torch.sin(angle) * fy) * recipes.stretch[:, layer, None, None]
    across = torch.cos(angle) * fy - torch.sin(angle) * fx
    f = (along**2 + across**2).sqrt() * recipes.period[:, layer, None, None]
    slope, width, ring = (recipes.shape[:, layer, i, None, None] for i in range(3))
    cloud = 1 / (1 + f) ** (1 + 2.5 * slope)
    band = torch.exp(-0.5 * ((f - 1) / (0.1 + 0.5 * width)) ** 2)
    return torch.where(ring < 0.5, cloud, band)


def _noise(recipes: Recipes, layer: int, x: torch.Tensor, y: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return _spectral(len(recipes), x.shape[-1], _spectrum(recipes, layer, x.shape[-1]), generator)


def _ridges(recipes: Recipes, layer: int, x: torch.Tensor, y: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Lines where a noise is zero: veins, creases, hair."""
    field = _normal(_noise(recipes, layer, x, y, generator))
    width = 0.05 + 0.5 * recipes.shape[:, layer, 3, None, None]
    return torch.exp(-((field / width) ** 2))


def _gratings(recipes: Recipes, layer: int, x: torch.Tensor, y: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Up to three waves, added or multiplied, from soft to sharp."""
    u, v = _turned(recipes, layer, x, y)
    s = recipes.shape[:, layer, :, None, None]
    first = torch.sin(2 * math.pi * v)
    second = torch.sin(2 * math.pi * (u * recipes.stretch[:, layer, None, None] * (0.5 + s[:, 0]) + s[:, 1] * v))
    third = torch.sin(2 * math.pi * (0.37 + s[:, 2]) * (u + v))
    together = torch.where(s[:, 3] < 0.5, first * second, first + s[:, 4] * second + 0.5 * s[:, 1] * third)
    sharp = 1 + 6 * s[:, 5] ** 2
    return torch.tanh(sharp * together)


def _weave(recipes: Recipes, layer: int, x: torch.Tensor, y: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Threads over and under each other: plain, or in steps (a twill)."""
    u, v = _turned(recipes, layer, x, y)
    s = recipes.shape[:, layer, :, None, None]
    u = u * recipes.stretch[:, layer, None, None] ** 0.5
    i, j = torch.floor(u), torch.floor(v)
    over_for = 1 + torch.floor(3 * s[:, 0])
    shift = 1 + torch.floor(2 * s[:, 1])
    above = torch.remainder(i + shift * j, over_for + 1) < over_for
    across, along = torch.sin(math.pi * (v - j)), torch.sin(math.pi * (u - i))
    flat = 0.3 + 1.5 * s[:, 2]
    thread = torch.where(above, across.clamp_min(1e-4) ** flat, s[:, 3] * along.clamp_min(1e-4) ** flat)
    key = recipes.key[:, layer, None, None]
    uneven = torch.where(above, _hash(key, j.long(), j.long() * 0, 1), _hash(key, i.long(), i.long() * 0, 2))
    return thread * (1 - 0.4 * s[:, 4] * uneven)


def _neighbours(recipes: Recipes, layer: int, x: torch.Tensor, y: torch.Tensor, jitter: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Of each pixel's 3 × 3 cells: squared distance to the cell's point, and the cell."""
    u, v = _turned(recipes, layer, x, y)
    i, j = torch.floor(u).long(), torch.floor(v).long()
    key = recipes.key[:, layer, None, None]
    for di in (-1, 0, 1):
        for dj in (-1, 0, 1):
            a, b = i + di, j + dj
            px = a + 0.5 + jitter * (_hash(key, a, b, 3) - 0.5)
            py = b + 0.5 + jitter * (_hash(key, a, b, 4) - 0.5)
            yield (u - px) ** 2 + (v - py) ** 2, _hash(key, a, b, 5)


def _cells(recipes: Recipes, layer: int, x: torch.Tensor, y: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Cells about scattered points: domes, facets of their own height, or walls between them."""
    s = recipes.shape[:, layer, :, None, None]
    nearest = torch.full_like(x, 9.0)
    second, level = nearest.clone(), nearest.clone()
    for distance, value in _neighbours(recipes, layer, x, y, 0.2 + 0.8 * s[:, 0]):
        is_nearest = distance < nearest
        second = torch.where(is_nearest, nearest, torch.minimum(second, distance))
        level = torch.where(is_nearest, value, level)
        nearest = torch.minimum(nearest, distance)
    wall = second.sqrt() - nearest.sqrt()
    walls = torch.tanh(wall * (2 + 12 * s[:, 1]))
    return torch.where(s[:, 2] < 0.35, -nearest, torch.where(s[:, 2] < 0.7, walls + s[:, 3] * level, level + s[:, 3] * walls))


def _grains(recipes: Recipes, layer: int, x: torch.Tensor, y: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Separate round grains, of different sizes and heights, on an even ground."""
    s = recipes.shape[:, layer, :, None, None]
    height = torch.zeros_like(x)
    for distance, value in _neighbours(recipes, layer, x, y, 0.3 + 0.7 * s[:, 0]):
        radius = (0.15 + 0.35 * s[:, 1]) * (1 - s[:, 2] * value)
        there = value > 0.8 * s[:, 3]  # some places stay empty
        grain = torch.sigmoid((radius - distance.sqrt()) * (6 + 40 * s[:, 4])) * (1 - 0.6 * s[:, 5] * value)
        height = torch.maximum(height, grain * there)
    return height


def _leaves(recipes: Recipes, layer: int, x: torch.Tensor, y: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Discs or squares of many sizes that fall on each other."""
    n, size, _ = x.shape
    device = x.device
    s = recipes.shape[:, layer, :, None, None]
    axis = torch.arange(size, device=device, dtype=torch.float32)
    at = torch.rand(4, LEAVES, n, 1, 1, generator=generator, device=device)
    height = torch.rand(n, 1, 1, generator=generator, device=device).expand(n, size, size).clone()
    angle = recipes.angle[:, layer, None, None]
    cos, sin = torch.cos(angle), torch.sin(angle)
    for k in range(LEAVES):
        dx, dy = axis[None, None, :] - at[0, k] * size, axis[None, :, None] - at[1, k] * size
        a, b = cos * dx + sin * dy, (cos * dy - sin * dx) * recipes.stretch[:, layer, None, None]
        radius = recipes.period[:, layer, None, None] * (0.35 + s[:, 0] * at[2, k] ** 2 * 2)
        inside = torch.where(s[:, 1] < 0.6, a * a + b * b < radius**2, torch.maximum(a.abs(), b.abs()) < radius)
        height = torch.where(inside, at[3, k], height)
    return height


_PATTERN: dict[str, Callable[..., torch.Tensor]] = {
    "noise": _noise, "gratings": _gratings, "cells": _cells, "leaves": _leaves, "weave": _weave, "grains": _grains, "ridges": _ridges,
}  # fmt: skip
