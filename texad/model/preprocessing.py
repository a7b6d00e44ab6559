"""From an image on disk to the numbers that the backbone reads.

The backbone was trained on square colour images of 224 x 224 pixels, so every image is brought to
that shape: resized (bilinear, averaging where it shrinks) and scaled from 0..255 to [0, 1]. The
aspect ratio is not kept, because a crop could cut a defect off.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from texad.errors import DataError, check_range
from texad.io.images import read_mask, read_pixels

IMAGE_SIZE = 224
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def resize(image: Image.Image | np.ndarray, image_size: int = IMAGE_SIZE) -> np.ndarray:
    """Resize an RGB image to a square.

    Bilinear interpolation takes the mean of the nearest pixels, weighted by their distance. Where
    the image shrinks, more pixels take part, so that none is skipped (`antialias`): a thin scratch
    grows fainter, but does not vanish.

    Parameters
    ----------
    image : PIL.Image.Image or ndarray, uint8, shape (H, W, 3)
    image_size : int, default 224
        Height and width of the result, in pixels.

    Returns
    -------
    ndarray, uint8, shape (image_size, image_size, 3)
    """
    pixels = torch.from_numpy(image if isinstance(image, np.ndarray) else np.array(image))
    one = pixels.permute(2, 0, 1)[None]  # (1, 3, H, W), without moving a number
    small = functional.interpolate(one, (image_size, image_size), mode="bilinear", antialias=True)
    return small[0].permute(1, 2, 0).numpy()


def load_images(paths: Sequence[Path], image_size: int = IMAGE_SIZE) -> torch.Tensor:
    """Read and preprocess images.

    Parameters
    ----------
    paths : sequence of Path, length N
    image_size : int, default 224
        In pixels; a positive multiple of 16, since layer3 looks at the image in steps of 16 pixels.

    Returns
    -------
    Tensor, float32, shape (N, 3, image_size, image_size), in [0, 1], in channels_last memory format

    Raises
    ------
    DataError
        A ValueError: an image cannot be read (the message names the file), or `image_size` does not
        fit.
    """
    check_range(
        "image_size",
        image_size,
        at_least=16,
        multiple_of=16,
        hint="224 in the published method",
        error=DataError,
    )
    images = np.empty((len(paths), image_size, image_size, 3), dtype=np.uint8)
    for image, path in zip(images, paths, strict=True):
        image[:] = resize(read_pixels(path), image_size)
    return (
        torch.from_numpy(images).permute(0, 3, 1, 2).to(torch.float32).div_(255)
    )  # the colours of a pixel still side by side


def load_pictures(paths: Sequence[Path], image_size: int = IMAGE_SIZE) -> np.ndarray:
    """Load what the backbone sees, as pictures to look at.

    Returns
    -------
    ndarray, float32, shape (N, image_size, image_size, 3), in [0, 1]
    """
    return load_images(paths, image_size).permute(0, 2, 3, 1).numpy()


def image_batches(
    paths: Sequence[Path], image_size: int = IMAGE_SIZE, batch_size: int = 16
) -> Iterator[torch.Tensor]:
    """Yield preprocessed images in batches, in the order of `paths`; the last batch may be smaller.

    Only one batch is in memory at a time.
    """
    for start in range(0, len(paths), batch_size):
        yield load_images(paths[start : start + batch_size], image_size)


class Normalize(nn.Module):
    """Subtract the ImageNet mean and divide by the ImageNet standard deviation, colour by colour.

    An option: the published method feeds [0, 1] images as they are.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalize images: (N, 3, H, W) in, the same shape out."""
        return (images - self.mean) / self.std


def load_mask(path: Path | None, image_size: int = IMAGE_SIZE) -> np.ndarray:
    """Read a ground-truth mask and resize it as its image was resized.

    Parameters
    ----------
    path : Path or None
        None stands for an image without defect: the mask is empty.
    image_size : int, default 224

    Returns
    -------
    ndarray, bool, shape (image_size, image_size)
        True where the surface is defective. A pixel counts as defective if any part of it is, so
        that a thin scratch does not vanish in the smaller mask.
    """
    if path is None:
        return np.zeros((image_size, image_size), dtype=bool)
    mask = Image.fromarray(read_mask(path).astype(np.float32))
    return np.asarray(mask.resize((image_size, image_size), Image.Resampling.BOX)) > 0
