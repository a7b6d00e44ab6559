"""From an image on disk to the numbers that the backbone reads.

The backbone was trained on square colour images of 224 x 224 pixels, so every image is brought to that shape: resized
(bilinear, averaging where it shrinks) and scaled from 0..255 to [0, 1]. The aspect ratio is not kept, because a
crop could cut a defect off. Images that cannot be read are found first: a few are left out, many are an error.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional
from tqdm import tqdm

from texad.data.datasets import Category, Sample, Unreadable
from texad.errors import DataError, ImageError, printable
from texad.io.images import check_image, read_mask, read_pixels

IMAGE_SIZE = 224
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def readable(category: Category, unreadable_limit: float = 0.05, progress: bool = True) -> Category:
    """Leave out the images that cannot be read, if they are few.

    One damaged file among many changes little, and is no reason to lose a day. Many are a sign that something else is wrong, and what is left
    may no longer stand for what was photographed. So there is a limit, for each folder by itself, and none may lose all.

    A test image is also left out if its mask cannot be read, or has another size than the image: nobody could say where its defect is. An
    all-black mask is taken at its word.

    Parameters
    ----------
    category : Category
    unreadable_limit : float, default 0.05
        The largest part of the images of `train/good`, and of each folder of `test`, that may be left out; from 0 to 1.
    progress : bool, default True
        Show a progress bar.

    Returns
    -------
    Category
        Without these images; `unreadable` says which they are, in their order.

    Raises
    ------
    DataError
        A ValueError: more images of a folder than `unreadable_limit`, or all of them, cannot be read; one line names the folder and
        the first files. Or `unreadable_limit` is out of range.
    """
    if not 0 <= unreadable_limit <= 1:
        raise DataError(
            f"unreadable_limit must be between 0 and 1 (0.05 is one image in twenty), not {unreadable_limit}"
        )
    samples = category.train + category.test
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        reasons = list(
            tqdm(
                pool.map(_problem, samples),
                "reading",
                len(samples),
                unit="image",
                disable=not progress,
            )
        )
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C waits for no other image
    left_out = tuple(
        Unreadable(sample, reason)
        for sample, reason in zip(samples, reasons, strict=True)
        if reason
    )
    n_images = Counter(sample.path.parent for sample in samples)
    for folder, n in Counter(each.sample.path.parent for each in left_out).items():
        if n == n_images[folder] or n / n_images[folder] > unreadable_limit:
            raise DataError(
                _too_many(
                    [each for each in left_out if each.sample.path.parent == folder],
                    n_images[folder],
                    unreadable_limit,
                )
            )
    lost = {each.sample for each in left_out}
    train, test = (
        tuple(sample for sample in part if sample not in lost)
        for part in (category.train, category.test)
    )
    return replace(category, train=train, test=test, unreadable=category.unreadable + left_out)


def resize(image: Image.Image | np.ndarray, image_size: int = IMAGE_SIZE) -> np.ndarray:
    """Resize an RGB image to a square.

    Bilinear interpolation takes the mean of the nearest pixels, weighted by their distance. Where the image shrinks, more pixels take part, so
    that none is skipped (`antialias`): a thin scratch grows fainter, but does not vanish.

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


def to_array(image: Image.Image | np.ndarray, image_size: int = IMAGE_SIZE) -> np.ndarray:
    """Resize an RGB image and scale it to [0, 1].

    Parameters
    ----------
    image, image_size
        As for `resize`.

    Returns
    -------
    ndarray, float32, shape (image_size, image_size, 3)
    """
    return resize(image, image_size).astype(np.float32) / 255


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
        A ValueError: an image cannot be read (the message names the file), or `image_size` does not fit.
    """
    if image_size < 16 or image_size % 16:
        raise DataError(
            f"image_size must be a positive multiple of 16 (224 in the published method), not {image_size}"
        )
    images = np.empty((len(paths), image_size, image_size, 3), dtype=np.uint8)
    for image, path in zip(images, paths, strict=True):
        image[:] = resize(read_pixels(path), image_size)
    return (
        torch.from_numpy(images).permute(0, 3, 1, 2).to(torch.float32).div_(255)
    )  # the colours of a pixel still side by side


def load_pictures(paths: Sequence[Path], image_size: int = IMAGE_SIZE) -> np.ndarray:
    """What the backbone sees, as pictures to look at.

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


def normalize(images: torch.Tensor) -> torch.Tensor:
    """Subtract the ImageNet mean and divide by the ImageNet standard deviation, colour by colour.

    An option: the published method feeds [0, 1] images as they are.
    """
    mean = torch.tensor(IMAGENET_MEAN, device=images.device).view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD, device=images.device).view(3, 1, 1)
    return (images - mean) / std


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
        True where the surface is defective. A pixel counts as defective if any part of it is, so that a thin scratch does
        not vanish in the smaller mask.
    """
    if path is None:
        return np.zeros((image_size, image_size), dtype=bool)
    mask = Image.fromarray(read_mask(path).astype(np.float32))
    return np.asarray(mask.resize((image_size, image_size), Image.Resampling.BOX)) > 0


def _problem(sample: Sample) -> str:
    """What makes an image useless; empty if nothing does."""
    try:
        (sample.defect + sample.path.name).encode()
        height, width = check_image(sample.path)
    except UnicodeEncodeError:
        return "its name is no UTF-8, and could not be written into a table; rename it"
    except ImageError as error:
        return error.reason
    if sample.mask is None:
        return ""
    try:
        rows, columns = read_mask(sample.mask).shape
    except ImageError as error:
        return f"its mask {printable(sample.mask.name)}: {error.reason}"
    is_same = (rows, columns) == (height, width)
    return (
        ""
        if is_same
        else f"its mask has {columns} × {rows} pixels, and the image {width} × {height}"
    )


def _too_many(left_out: Sequence[Unreadable], n: int, unreadable_limit: float) -> str:
    """One line about a folder with too many images that cannot be read."""
    names = "; ".join(f"{each.sample.path.name} ({each.reason})" for each in left_out[:3]) + (
        "; …" if len(left_out) > 3 else ""
    )
    share = (
        f"unreadable_limit allows {unreadable_limit:.4g} of them"
        if len(left_out) < n
        else "a folder must not lose all"
    )
    way_out = "replace or remove these files" + (
        ", or raise unreadable_limit" if len(left_out) < n else ""
    )
    return f"{left_out[0].sample.path.parent}: {len(left_out)} of {n} images cannot be read, and {share}: {names}: {way_out}"
