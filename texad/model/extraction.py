"""Compute the features of many images, on all cores, and store them on disk.

The features of an image never change, so they are computed once.
"""

import math
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from texad.errors import check_range
from texad.io.atomic import replacing
from texad.model import preprocessing
from texad.model.backbone import feature_maps, n_channels
from texad.model.base import device
from texad.model.preprocessing import SQUARE, STRIDE, Sight

Item = TypeVar("Item")
Result = TypeVar("Result")


def extract(
    backbone: nn.Sequential,
    paths: Sequence[Path],
    file: Path,
    *,
    sight: Sight = SQUARE,
    size: tuple[int, int] | None = None,
    batch_size: int = 2,
    progress: bool = True,
) -> np.ndarray:
    """Compute the features of images and store them in a NumPy file, batch by batch.

    Images may differ in size, and so their maps do. A smaller map lies in the top left corner of
    what is stored for its image, and the places that are not there are NaN in all channels, as are
    those outside the region of `sight`.

    Parameters
    ----------
    backbone : nn.Sequential
    paths : sequence of Path, length N
        May be empty.
    file : Path
        Where the features go (`.npy`), written under a temporary name and renamed when complete.
        Stored as (N, H, W, C), so that the vector of a place lies in one piece.
    sight : Sight
        How the images are brought to the backbone.
    size : (int, int), optional
        H and W of what is stored, at least those of the largest map, which they are by default;
        see `map_size`.
    batch_size : int, default 2
        Images in one forward pass. Each core works on a batch of its own, so small ones are as fast
        as large ones there, and keep fewer images in memory. A graphics processor wants 32 or more.
    progress : bool, default True
        Show a progress bar.

    Returns
    -------
    ndarray, float32, shape (N, C, H, W)
        Memory-mapped: read from disk where it is used.

    Raises
    ------
    ValueError
        If an image cannot be read, or its features are not finite.
    """
    check_range("batch_size", batch_size, at_least=1)
    backbone.to(device())
    rows, columns = size or map_size(paths, sight)

    @torch.inference_mode()
    def stored(batch: Sequence[Path]) -> np.ndarray:
        padded = [
            functional.pad(
                maps, (0, columns - maps.shape[3], 0, rows - maps.shape[2]), value=math.nan
            )
            for maps in features_of(backbone, batch, sight)
        ]  # right and below
        return torch.cat(padded).permute(0, 2, 3, 1).contiguous().cpu().numpy()

    with (
        replacing(file) as temporary,
        temporary.open("wb") as out,
        tqdm(total=len(paths), desc=file.stem, unit="image", disable=not progress) as bar,
    ):
        batches = (paths[i : i + batch_size] for i in range(0, len(paths), batch_size))
        shape = (len(paths), rows, columns, n_channels(backbone))
        np.lib.format.write_array_header_1_0(
            out, {"descr": "<f4", "fortran_order": False, "shape": shape}
        )
        for maps in in_order(stored, batches):
            out.write(maps.data)
            bar.update(len(maps))
    return load(file)


@torch.inference_mode()
def features_of(
    backbone: nn.Sequential, paths: Sequence[Path], sight: Sight
) -> Iterator[torch.Tensor]:
    """Yield the feature maps of images in their order, as many at once as become one shape.

    Yields
    ------
    Tensor, float32, shape (n, 1024, H, W)
        On `device()`. Places outside the region are NaN.

    Raises
    ------
    ValueError
        If an image cannot be read, or its features are not finite.
    """
    remaining = iter(paths)
    for images in preprocessing.image_batches(paths, sight, len(paths)):
        maps = feature_maps(backbone, images.to(device()))
        for one, path in zip(maps, remaining, strict=False):
            if not torch.isfinite(one).all():
                raise ValueError(f"features of {path} are not finite")
            _, inside = sight.inside(path, (images.shape[2], images.shape[3]))
            if inside is not None:
                one[:, ~torch.from_numpy(inside)] = math.nan
        yield maps


def map_size(paths: Iterable[Path], sight: Sight) -> tuple[int, int]:
    """Compute H and W of the smallest array that holds the feature maps of all these images."""
    shapes = [sight.shape_of(path) for path in paths] or [sight.shape(1, 1)]
    height, width = np.max(shapes, axis=0).tolist()
    return height // STRIDE, width // STRIDE


def in_order(
    function: Callable[[Item], Result], items: Iterable[Item]
) -> Generator[Result, None, None]:
    """Yield `function` of each item, in their order, computed by a thread for each core.

    Each thread computes on one core. This is faster than all cores on one item, since nobody waits:
    while one reads an image, another convolves. Few results are ever in memory, however slowly they
    are taken. The items may come slowly, too: a result is given as soon as it is there, and does
    not wait for the next item.
    """
    cores = torch.get_num_threads()
    pool = ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,))
    futures: queue.Queue[Future[Result] | None] = queue.Queue(2 * cores + 2)

    def feed() -> None:
        try:
            for item in items:
                futures.put(pool.submit(function, item))
        # the items' own, to be raised where the results are taken; or the pool was shut down
        except BaseException as error:
            failed: Future[Result] = Future()
            futures.put(failed)
            failed.set_exception(error)
        futures.put(None)

    # a daemon, since it may wait for an item that never comes
    threading.Thread(target=feed, daemon=True).start()
    try:
        while (future := futures.get()) is not None:
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)
        while not futures.empty():  # the feeder may wait for room
            futures.get_nowait()
        torch.set_num_threads(cores)  # for the threads that others will start


def load(file: Path) -> np.ndarray:
    """Open stored features without reading them into memory.

    Returns
    -------
    ndarray, float32, shape (N, C, H, W), memory-mapped and read-only
    """
    return np.load(file, mmap_mode="r").transpose(0, 3, 1, 2)
