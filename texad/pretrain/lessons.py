"""What a step asks: drawings of textures, most of them with a place where something else is, and where that is.

Drawings of a texture show different pieces of it, under another light each. A backbone that is to find what does not belong must take all this for
the same surface, and must not overlook what is there only once, which is what a defect is.
"""

import math

import torch
from torch.nn import functional

from texad.pretrain import textures

DEFECTS = ("relative", "stranger", "stain", "blur", "bend", "scratch")
CLEAN = 0.15  # part of the drawings that stay as they are
GREY = 0.3  # part of the pictures without any colour


def lesson(n_surfaces: int, size: int, generator: torch.Generator, views: int = 6, amount: float = 0.5) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw textures that nobody has seen before.

    Parameters
    ----------
    n_surfaces : int, at least 3
    size : int
        Height and width of the images, in pixels.
    generator : torch.Generator
    views : int, default 6
        Drawings of each texture.
    amount : float, default 0.5
        See `textures.vary`.

    Returns
    -------
    images : Tensor, float32, shape (views · n_surfaces, 3, size, size)
        In [0, 1]. The first drawing of each texture, then the second of each, and so on.
    masks : Tensor, float32, shape (views · n_surfaces, size, size)
        1 where something else is.

    Raises
    ------
    ValueError
        If there are fewer than three textures: a stranger would be the surface itself.
    """
    if n_surfaces < 3:
        raise ValueError(f"a lesson needs at least 3 surfaces, not {n_surfaces}")
    recipes = textures.draw_recipes(n_surfaces, generator)
    relatives = textures.vary(recipes, amount, generator)
    images = textures.draw(textures.cat([recipes] * views), size, generator)
    others = textures.draw(textures.cat([relatives] * views), size, generator)
    n, device = len(images), generator.device
    masks = draw_masks(n, size, generator)
    kind = torch.randint(len(DEFECTS), (n,), generator=generator, device=device)
    spoilt = spoil(images, others, images.roll(2, 0), masks, kind, generator)
    clean = torch.rand(n, generator=generator, device=device) < CLEAN
    images = torch.where(clean[:, None, None, None], images, spoilt)
    return photographed(images, generator), masks * ~clean[:, None, None]


def draw_masks(n: int, size: int, generator: torch.Generator) -> torch.Tensor:
    """Blobs, boxes and strokes, hard or soft: (N, size, size), float32, from 0 to 1."""
    device = generator.device

    def uniform(low: float = 0.0, high: float = 1.0) -> torch.Tensor:
        return low + (high - low) * torch.rand(n, 1, 1, generator=generator, device=device)

    axis = torch.arange(size, device=device, dtype=torch.float32)
    x, y = axis[None, None, :] - uniform(0.15, 0.85) * size, axis[None, :, None] - uniform(0.15, 0.85) * size
    angle = uniform(0, 2 * math.pi)
    u, v = torch.cos(angle) * x + torch.sin(angle) * y, torch.cos(angle) * y - torch.sin(angle) * x
    radius, aspect = size * uniform(0.08, 0.25), uniform(1, 2.5)
    rough = textures.smooth_noise(n, size, torch.full((n,), size / 8, device=device), generator, 1)[:, 0]
    blob = (u**2 + (aspect * v) ** 2).sqrt() / radius + 0.25 * rough < 1
    box = torch.maximum(u.abs(), aspect * v.abs()) < 0.8 * radius
    curve = v + uniform(-0.6, 0.6) * u.abs() + 0.06 * size * rough * uniform(0, 0.5)
    stroke = (curve.abs() < size * uniform(0.012, 0.035)) & (u.abs() < size * uniform(0.15, 0.4))
    kind = torch.randint(3, (n, 1, 1), generator=generator, device=device)
    mask = torch.where(kind == 0, blob, torch.where(kind == 1, box, stroke)).float()
    soft = functional.avg_pool2d(mask[:, None], 3, 1, 1, count_include_pad=False)[:, 0]
    return torch.where(uniform() < 0.5, soft, mask)


def spoil(
    images: torch.Tensor, relatives: torch.Tensor, strangers: torch.Tensor, masks: torch.Tensor, kind: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """Put something into each image where its mask is.

    Parameters
    ----------
    images, relatives, strangers : Tensor, shape (N, 3, S, S)
        Patches are taken from the last two.
    masks : Tensor, shape (N, S, S)
    kind : LongTensor, shape (N,)
        Index into `DEFECTS`.
    generator : torch.Generator

    Returns
    -------
    Tensor, shape (N, 3, S, S)
    """
    n, _, size, _ = images.shape
    device = images.device

    def uniform(low: float = 0.0, high: float = 1.0, channels: int = 1) -> torch.Tensor:
        return low + (high - low) * torch.rand(n, channels, 1, 1, generator=generator, device=device)

    sign = torch.where(uniform() < 0.5, -1.0, 1.0)
    stain = images + sign * uniform(0.06, 0.45) * uniform(0.8, 1.2, channels=3)
    blur = functional.avg_pool2d(images, 7, 1, 3, count_include_pad=False)
    axis = torch.linspace(-1, 1, size, device=device)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    move = textures.smooth_noise(n, size, torch.full((n,), size / 10, device=device), generator, 2) * (10 / size)  # of about 5 pixels
    grid = torch.stack([x + move[:, 0], y + move[:, 1]], -1)
    bend = functional.grid_sample(images, grid, padding_mode="reflection", align_corners=True)
    scratch = 0.25 * images + 0.75 * uniform(channels=3)
    inside = torch.stack([relatives, strangers, stain, blur, bend, scratch])[kind, torch.arange(n, device=device)]
    return (images + masks[:, None] * (inside - images)).clamp(0, 1)


def photographed(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Each picture with a camera and a light of its own: less colour or none, other colours, another brightness and contrast.

    Colours alone could tell many surfaces of a lesson apart, and little else might be learnt (Chen et al., "SimCLR", ICML 2020, section 3.2). What is
    in a mask is changed like all around it, so that it stays as different as it was.

    Parameters
    ----------
    images : Tensor, shape (N, 3, S, S)
    generator : torch.Generator

    Returns
    -------
    Tensor, shape (N, 3, S, S)
        In [0, 1].
    """
    n, device = len(images), images.device

    def uniform(low: float, high: float, channels: int = 1) -> torch.Tensor:
        return low + (high - low) * torch.rand(n, channels, 1, 1, generator=generator, device=device)

    order = torch.rand(n, 3, generator=generator, device=device).argsort(1)
    images = images.gather(1, order[:, :, None, None].expand_as(images))
    grey = (images * torch.softmax(uniform(0, 1, channels=3), 1)).sum(1, keepdim=True)
    images = images.lerp(grey.expand_as(images), torch.where(uniform(0, 1) < GREY, 1.0, uniform(0, 1)))
    mean, contrast = images.mean((1, 2, 3), keepdim=True), images.std((1, 2, 3), keepdim=True).clamp_min(1e-3)
    wanted = torch.exp(uniform(math.log(0.03), math.log(0.25)))  # as a factor, no more than 4: noise is no surface
    images = uniform(0.2, 0.8) + (images - mean) * (wanted / contrast).clamp(0.1, 4) * uniform(0.9, 1.1, channels=3)
    return images.clamp(0, 1)
