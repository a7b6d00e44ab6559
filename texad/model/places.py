"""From places of a feature map to pixels of the image: where a place looks, and maps in pixels.

A place sees a wide piece of the image, most of all its middle (Luo et al., "Understanding the
effective receptive field in deep convolutional neural networks", 2016, arXiv:1701.04128). Where
this middle lies is not given by the stride alone: padding moves it, and so does what the network
has learnt. So it is measured, by changing a few pixels and looking for the places that notice.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

CHANGES = 48  # patches that `measure` changes
PATCH = 7  # pixels, height and width of a patch
MARGIN = 48  # pixels from a patch to the border, where the image is large enough


@dataclass(frozen=True)
class Grid:
    """Where the places of a map lie: place (i, j) at pixel stride · (i, j) + centre.

    Attributes
    ----------
    stride : float
        Pixels of the network's input from one place to the next.
    centre : (float, float)
        Row and column of place (0, 0), in pixels of the network's input. Pixels have their centres
        at whole numbers, so the mean of each square of s × s pixels has the centre (s − 1) / 2.
    """

    stride: float
    centre: tuple[float, float]


@torch.inference_mode()
def measure(
    network: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor, seed: int = 0
) -> Grid:
    """Measure where the places of a network's feature maps lie.

    Small patches of the images are inverted, one at a time. The places whose features change have a
    centroid, weighted by the squared change; the centre is the mean distance from it to the patch.
    Rows and columns of the patches are drawn evenly over all distances from a place, as in a Latin
    hypercube (McKay, Beckman and Conover, Technometrics 21, 1979), and away from the border.

    Parameters
    ----------
    network : callable
        Takes images, (1, 3, H, W), gives maps, (1, C, H / stride, W / stride).
    images : Tensor, float32, shape (N, 3, H, W)
        In [0, 1], on the device of the network; a few photographs.
    seed : int, default 0

    Returns
    -------
    Grid
        Its centre is rounded to a tenth of a pixel. Where nothing changes it is (0, 0), as the
        arithmetic of convolutions with padding has it (Araujo, Norris and Sim, "Computing receptive
        fields of convolutional neural networks", Distill 2019).

    Raises
    ------
    ValueError
        If a map has not the proportions of the images.

    Examples
    --------
    The mean of each square of 4 × 4 pixels, measured with one black image:

    >>> measure(torch.nn.AvgPool2d(4), torch.zeros(1, 3, 96, 128))
    Grid(stride=4.0, centre=(1.5, 1.5))
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # their number would change the last digits
    try:
        plain = [network(image[None])[0] for image in images]
        (height, width), (rows, columns) = images.shape[2:], plain[0].shape[1:]
        stride = height / rows
        if stride != width / columns:
            raise ValueError(
                f"maps of {rows} × {columns} places have not the proportions of images of "
                f"{height} × {width} pixels; choose images whose size is a multiple of the stride"
            )
        rng = np.random.default_rng(seed)
        patches = zip(_positions(rng, height, stride), _positions(rng, width, stride), strict=True)
        distances = []
        for k, patch in enumerate(patches):
            changed = images[k % len(images)].clone()
            down, across = (slice(max(0, at - PATCH // 2), at + PATCH // 2 + 1) for at in patch)
            changed[:, down, across] = 1 - changed[:, down, across]
            change = (network(changed[None])[0] - plain[k % len(images)]).double()
            weights = change.square().sum(dim=0).cpu().numpy()  # (rows, columns)
            if total := weights.sum():
                centroid = weights.sum(axis=1) @ range(rows), weights.sum(axis=0) @ range(columns)
                distances.append(np.array(patch) - stride * np.array(centroid) / total)
    finally:
        torch.set_num_threads(threads)
    # 0.0 instead of -0.0
    y, x = (np.mean(distances or [(0, 0)], axis=0).round(1) + 0.0).tolist()
    return Grid(stride, (y, x))


def _positions(rng: np.random.Generator, size: int, stride: float) -> list[int]:
    """Draw pixels of one axis, one in each of `CHANGES` parts of a stride, in random order."""
    strides = max(1, int((size - 2 * MARGIN) / stride))  # in the middle of the image
    within = (rng.permutation(CHANGES) + 0.5) / CHANGES
    at = (size - strides * stride) / 2 + stride * (rng.integers(strides, size=CHANGES) + within)
    return at.astype(int).tolist()


def enlarge(
    maps: np.ndarray,
    grid: Grid,
    image_size: int | tuple[int, int],
    size: int | tuple[int, int] | None = None,
) -> np.ndarray:
    """Interpolate maps at the pixels of a picture, bilinearly between the centres of the places.

    Beyond the outermost centres the values stay as they are there. Places that are missing (NaN)
    take no part: what a pixel gets is the mean of the others beside it. A pixel that is nearer to
    missing places than to others is NaN.

    Parameters
    ----------
    maps : ndarray, float32, shape (N, H, W)
        Rows and columns beyond those of an input of `image_size` are left out.
    grid : Grid
        Where their places lie.
    image_size : int or (int, int)
        Height and width of the network's input, in pixels.
    size : int or (int, int), optional
        Height and width of the picture, which shows the same image; by default `image_size`.

    Returns
    -------
    ndarray, float32, shape (N, height, width)

    Examples
    --------
    Two places, at the pixels 1 and 5:

    >>> maps = np.array([[[0, 8], [0, 8]]], dtype=np.float32)
    >>> enlarge(maps, Grid(4, (1, 1)), image_size=8)[0, 0].tolist()
    [0.0, 0.0, 2.0, 4.0, 6.0, 8.0, 8.0, 8.0]
    """
    rows, columns = (math.ceil(n / grid.stride) for n in np.broadcast_to(image_size, 2))
    maps = maps[:, :rows, :columns]
    down, across = interpolation(maps.shape[1:], grid, image_size, size)
    missing = np.isnan(maps)
    if not missing.any():
        return down @ maps @ across.T
    weights = down @ (~missing).astype(np.float32) @ across.T
    with np.errstate(invalid="ignore"):
        large = (down @ np.where(missing, np.float32(0), maps) @ across.T) / weights
    return np.where(weights >= 0.5, large, np.float32(np.nan))


def enlarge_each(
    maps: np.ndarray,
    grid: Grid,
    image_sizes: Iterable[int | tuple[int, int]],
    size: int | tuple[int, int] | None = None,
) -> Iterator[np.ndarray]:
    """Yield each of the `maps`, which may be memory-mapped, as `enlarge` returns it.

    Parameters
    ----------
    maps, grid, size
        See `enlarge`.
    image_sizes : iterable of (int, int) or int
        Height and width of the network's input, for each map; `itertools.repeat` where they are the
        same.
    """
    for one, image_size in zip(maps, image_sizes, strict=False):
        yield enlarge(one[None], grid, image_size, size)[0]


def extent(maps: np.ndarray) -> tuple[int, int]:
    """Count the rows and columns of a map, without those at its end that are missing (NaN).

    Parameters
    ----------
    maps : ndarray, shape (H, W) or (C, H, W)

    Examples
    --------
    >>> extent(np.array([[1, np.nan, np.nan], [2, 3, np.nan]]))
    (2, 2)
    """
    there = ~np.isnan(maps if maps.ndim == 2 else maps[0])
    rows, columns = (np.flatnonzero(there.any(axis=axis)) for axis in (1, 0))
    return int(rows[-1]) + 1, int(columns[-1]) + 1


def interpolation(
    shape: tuple[int, ...],
    grid: Grid,
    image_size: int | tuple[int, int],
    size: int | tuple[int, int] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the two matrices of `enlarge`, which multiply a map from the left and from the right.

    Parameters
    ----------
    shape : (int, int)
        Height and width of the map.
    grid, image_size, size
        See `enlarge`.

    Returns
    -------
    down : ndarray, float32, shape (height, H)
    across : ndarray, float32, shape (width, W)
    """
    inputs = np.broadcast_to(image_size, 2)
    pictures = np.broadcast_to(image_size if size is None else size, 2)
    matrices = []
    for places, centre, n_in, n_out in zip(shape, grid.centre, inputs, pictures, strict=True):
        pixels = (np.arange(n_out) + 0.5) * n_in / n_out - 0.5  # of the input
        at = np.clip((pixels - centre) / grid.stride, 0, places - 1)
        matrices.append(np.maximum(0, 1 - np.abs(at[:, None] - np.arange(places))))
    down, across = (matrix.astype(np.float32) for matrix in matrices)
    return down, across
