"""From an image on disk to the numbers that the backbone reads.

How large the numbers make an image, a `Sight` says. The published method brings every image to a
square of 224 x 224 pixels, as the backbone has seen in its training. An elongated image is squeezed
by that, and a fine crack along it may vanish. So the aspect ratio can be kept: the same number of
pixels, and as much work, in another shape. Images are resized (bilinear, averaging where they
shrink) and scaled from 0..255 to [0, 1]. They are never cropped: a crop could cut a defect off.
"""

import io
import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from texad.errors import DataError, check_range
from texad.io.images import WHITE, read_mask, read_pixels, read_size

IMAGE_SIZE = 224
STRIDE = 16  # pixels of the backbone's input between two neighbouring places of its feature map
MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff")
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Sight:
    """How a detector looks at an image.

    Parameters
    ----------
    size : int, default 224
        Root of the area of the backbone's input, in pixels; a multiple of 16, since layer3 looks at
        the image in steps of 16 pixels.
    keep_aspect : bool, default False
        Keep the image's aspect ratio. Else every image is resized to a square.
    normalize : bool, default False
        Subtract the ImageNet mean and divide by its standard deviation, see `Normalize`.
    layer2 : bool, default False
        Describe each place by layer2's features, too, see `backbone.build_backbone`.
    region : str or bytes, default ""
        File of a mask that is white where images are to be judged and black where not, or a folder
        of such masks, each with the name of its image (the suffix may differ); or a mask itself,
        the bytes of a PNG, see `holding_mask`. The mask is resized with the image. A pixel that
        shows any of the outside is painted over with the mean colour of the inside, and places of
        which more than half is painted over are missing. Empty: all of an image counts.
    white : int, default 65535
        Level that is white in images of 16 bits, see `texad.io.images.find_white`.

    Raises
    ------
    DataError
        A ValueError: `size` is no positive multiple of 16, or `white` is out of range.
    """

    size: int = IMAGE_SIZE
    keep_aspect: bool = False
    normalize: bool = False
    layer2: bool = False
    region: str | bytes = ""
    white: int = WHITE

    def __post_init__(self) -> None:
        check_range(
            "image_size",
            self.size,
            at_least=STRIDE,
            multiple_of=STRIDE,
            hint="224 in the published method",
            error=DataError,
        )
        bits = "4095 is white of 12 bits"
        check_range("white", self.white, at_least=1, at_most=WHITE, hint=bits, error=DataError)

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Compute height and width of the backbone's input for an image.

        Both are multiples of 16. Where the aspect ratio is kept, they are the nearest ones to that
        ratio and to an area of size². An image more elongated than one row of places, 16 pixels ×
        size² / 16, is squeezed to that.

        Parameters
        ----------
        height, width : int
            Of the image, in pixels.

        Examples
        --------
        >>> Sight(224).shape(500, 1250)
        (224, 224)
        >>> Sight(224, keep_aspect=True).shape(500, 1250)
        (144, 352)
        """
        if not self.keep_aspect:
            return self.size, self.size
        most = self.size / STRIDE
        ratio = min(max(math.sqrt(height / width), 1 / most), most)
        return STRIDE * round(most * ratio), STRIDE * round(most / ratio)

    def shape_of(self, path: Path) -> tuple[int, int]:
        """Compute `shape` for an image file, of which only the header is read, if at all."""
        return self.shape(*read_size(path)) if self.keep_aspect else self.shape(1, 1)

    def holding_mask(self) -> "Sight":
        """Hold the mask itself, where one serves all images, in place of its file.

        Raises
        ------
        DataError
            The mask cannot be read.
        """
        if not self.region or isinstance(self.region, bytes) or Path(self.region).is_dir():
            return self
        png = io.BytesIO()
        Image.fromarray(read_region(self.region)).save(png, "PNG")
        return replace(self, region=png.getvalue())

    def mask_of(self, path: Path) -> Path | bytes | None:
        """Find the mask of an image; None where there is no region.

        Raises
        ------
        DataError
            The folder of masks has none for this image.
        """
        if not self.region or isinstance(self.region, bytes):
            return self.region or None
        if not (mask := Path(self.region)).is_dir():
            return mask
        for name in (path.name, *(f"{path.stem}{suffix}" for suffix in MASK_SUFFIXES)):
            if (mask / name).is_file():
                return mask / name
        raise DataError(f"region {mask} has no mask named {path.stem}.png for {path}")

    def inside(
        self, path: Path, shape: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
        """Read where an image is to be judged.

        Parameters
        ----------
        path : Path
            Of the image.
        shape : (int, int)
            Height and width of what it has become, in pixels; multiples of 16.

        Returns
        -------
        pixels : ndarray, bool, shape (height, width), or None
            None where there is no region.
        places : ndarray, bool, shape (height / 16, width / 16), or None

        Raises
        ------
        DataError
            There is no mask for this image, it cannot be read, or leaves no place.
        """
        mask = self.mask_of(path)
        return (None, None) if mask is None else _inside(mask, shape)

    def shape_of_most(self, paths: Sequence[Path]) -> tuple[int, int]:
        """Find the `shape` that most of the images have; of several, the one that comes first."""
        return Counter(map(self.shape_of, paths)).most_common(1)[0][0]


SQUARE = Sight()  # of the published method


def read_region(mask: str | Path | bytes) -> np.ndarray:
    """Read the mask of a region, a file or the bytes of a PNG: bool, (height, width)."""
    if not isinstance(mask, bytes):
        return read_mask(mask)
    with Image.open(io.BytesIO(mask), formats=("PNG",)) as image:
        return np.asarray(image.convert("1"))


@lru_cache(maxsize=16)  # one mask may serve all images
def _inside(mask: Path | bytes, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    # a pixel of which any part comes from outside, as `resize` has it, would tell of that part
    pixels = _shrunk(read_region(mask), shape, Image.Resampling.BILINEAR) > 1 - 1e-4
    height, width = shape
    places = _shrunk(pixels, (height // STRIDE, width // STRIDE)) >= 0.5
    if not places.any():
        name = "mask" if isinstance(mask, bytes) else mask
        raise DataError(
            f"region {name} leaves nothing to judge: paint white what is to be judged, at least "
            f"one square of {STRIDE} × {STRIDE} pixels after resizing to {width} × {height}"
        )
    return pixels, places


def _shrunk(
    mask: np.ndarray, shape: tuple[int, int], how: Image.Resampling = Image.Resampling.BOX
) -> np.ndarray:
    """The share of each new pixel that is True in a mask, float32, (height, width)."""
    image = Image.fromarray(mask.astype(np.float32))
    return np.asarray(image.resize(shape[::-1], how))


def resize(image: Image.Image | np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """Resize an RGB image.

    Bilinear interpolation takes the mean of the nearest pixels, weighted by their distance. Where
    the image shrinks, more pixels take part, so that none is skipped (`antialias`): a thin scratch
    grows fainter, but does not vanish.

    Parameters
    ----------
    image : PIL.Image.Image or ndarray, uint8, shape (H, W, 3)
    size : int or (int, int)
        Height and width of the result, in pixels; one number for a square.

    Returns
    -------
    ndarray, uint8, shape (height, width, 3)
    """
    pixels = torch.from_numpy(image if isinstance(image, np.ndarray) else np.array(image))
    one = pixels.permute(2, 0, 1)[None]  # (1, 3, H, W), without moving a number
    small = functional.interpolate(one, size, mode="bilinear", antialias=True)
    return small[0].permute(1, 2, 0).numpy()


def load_images(
    paths: Sequence[Path], sight: Sight = SQUARE, shape: tuple[int, int] | None = None
) -> torch.Tensor:
    """Read and preprocess images.

    Parameters
    ----------
    paths : sequence of Path, length N
    sight : Sight
    shape : (int, int), optional
        Height and width that all of them are resized to, in pixels; by default what `sight` gives
        them, which must then be the same for all.

    Returns
    -------
    Tensor, float32, shape (N, 3, height, width), in [0, 1], in channels_last memory format

    Raises
    ------
    DataError
        A ValueError: an image cannot be read (the message names it), or has another input size than
        the first.
    """
    images = np.empty((0, 0, 0, 3), dtype=np.uint8)
    for i, path in enumerate(paths):
        pixels = read_pixels(path, sight.white)
        height, width = shape or sight.shape(*pixels.shape[:2])
        if not i:
            images = np.empty((len(paths), height, width, 3), dtype=np.uint8)
        if images.shape[1:3] != (height, width):
            raise DataError(
                f"{path} becomes {height} × {width} pixels, and {paths[0]} "
                f"{images.shape[1]} × {images.shape[2]}: load images of one shape at a time"
            )
        images[i] = resize(pixels, (height, width))
        inside, _ = sight.inside(path, (height, width))
        if inside is not None:
            images[i][~inside] = images[i][inside].mean(axis=0).round()
    return (
        torch.from_numpy(images).permute(0, 3, 1, 2).to(torch.float32).div_(255)
    )  # the colours of a pixel still side by side


def load_image(path: Path, sight: Sight = SQUARE) -> torch.Tensor:
    """Read and preprocess one image: a Tensor as of `load_images`, shape (1, 3, height, width)."""
    return load_images([path], sight)


def load_pictures(paths: Sequence[Path], sight: Sight = SQUARE) -> list[np.ndarray]:
    """Load what the backbone sees, as pictures to look at; they may differ in size.

    Returns
    -------
    list of ndarray, float32, shape (height, width, 3), in [0, 1]
    """
    return [load_image(path, sight)[0].permute(1, 2, 0).numpy() for path in paths]


def image_batches(
    paths: Sequence[Path], sight: Sight = SQUARE, batch_size: int = 16
) -> Iterator[torch.Tensor]:
    """Yield preprocessed images in batches, in the order of `paths`.

    Only one batch is in memory at a time. A batch ends early where the next image has another
    shape.
    """
    images = (load_image(path, sight) for path in paths)
    for _, of_one_shape in itertools.groupby(images, lambda image: image.shape):
        while batch := list(itertools.islice(of_one_shape, batch_size)):
            yield torch.cat(batch)


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


def load_mask(path: Path | None, sight: Sight = SQUARE, image: Path | None = None) -> np.ndarray:
    """Read a ground-truth mask and resize it as its image was resized.

    Parameters
    ----------
    path : Path or None
        None stands for an image without defect: the mask is empty.
    sight : Sight
    image : Path, optional
        The image. Needed for one without defect where the aspect ratio is kept.

    Returns
    -------
    ndarray, bool, shape (height, width)
        As large as the backbone's input; True where the surface is defective. A pixel counts as
        defective if any part of it is, so that a thin scratch does not vanish in the smaller mask.

    Raises
    ------
    ValueError
        If a file cannot be read, or `image` is needed and missing.
    """
    if path is None:
        if image is None and sight.keep_aspect:
            raise ValueError("image is needed: an empty mask has its shape")
        return np.zeros(sight.shape_of(image) if image else sight.shape(1, 1), dtype=bool)
    pixels = read_mask(path)
    return np.asarray(_shrunk(pixels, sight.shape(*pixels.shape)) > 0)
