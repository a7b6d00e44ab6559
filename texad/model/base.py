"""Base of all autoencoders of features: their interface, and one way to train and to stop."""

import copy
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from texad.data import splitting
from texad.errors import check_range
from texad.io.arrays import release

BLOCK = 64  # images in memory at a time


class FeatureAutoencoder(nn.Module):
    """Base class: takes feature maps that `prepare` returned and reconstructs them.

    Attributes
    ----------
    reduction : str
        Reduction of the score that suits this autoencoder, see `scoring.image_score`.
    widths : dict of str to int
        Layer sizes needed to rebuild the module before loading its weights.
    """

    reduction: str
    widths: dict[str, int]

    def prepare(self, features: torch.Tensor) -> torch.Tensor:
        """Return what the autoencoder sees of feature maps, (N, C, H, W): here, all of them."""
        return features


def device() -> torch.device:
    """Return the graphics processor where there is one, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def at_once(features: np.ndarray, most: int) -> int:
    """Count how many of the images fit where `most` images of 448 × 448 pixels do.

    Examples
    --------
    >>> at_once(np.empty((0, 1024, 14, 14)), 64), at_once(np.empty((0, 1024, 96, 96)), 64)
    (64, 5)
    """
    places = int(np.prod(features.shape[2:]))
    return max(1, min(most, most * 28 * 28 // places))


def blocks(features: np.ndarray, images: np.ndarray) -> Iterator[torch.Tensor]:
    """Yield the features of some images, at most 64 images at a time, of large ones fewer.

    Parameters
    ----------
    features : ndarray, float32, shape (N, C, H, W)
        May be memory-mapped.
    images : ndarray of int
        Numbers of the wanted images, in the wanted order.

    Yields
    ------
    Tensor, float32, shape (n, H, W, C), n <= 64
        Channels last, as in the file; on `device()`.
    """
    in_file_order, n = features.transpose(0, 2, 3, 1), at_once(features, BLOCK)
    for start in range(0, len(images), n):
        block = torch.from_numpy(in_file_order[images[start : start + n]])
        release(features)
        yield block.to(device())


def missing(maps: torch.Tensor) -> torch.Tensor | None:
    """Find the places that are not there, NaN in all channels.

    Parameters
    ----------
    maps : Tensor, float32, shape (n, C, H, W)

    Returns
    -------
    Tensor, bool, shape (n, 1, H, W), or None
        None if all are there; and in an export, whose images are of one size.
    """
    if torch.compiler.is_compiling() or not torch.isnan(maps[:, 0]).any():
        return None
    return torch.isnan(maps).all(dim=1, keepdim=True)


def vectors(maps: torch.Tensor) -> torch.Tensor:
    """Take the vectors of the places that are there, not NaN in all channels.

    Parameters
    ----------
    maps : Tensor, float32, shape (n, H, W, C)

    Returns
    -------
    Tensor, float32, shape (m, C), m <= n · H · W
        In the order of the places.
    """
    rows = maps.reshape(-1, maps.shape[-1])
    if not torch.isnan(rows[:, 0]).any():
        return rows
    return rows[~torch.isnan(rows).all(dim=1)]


def train_in_steps(
    autoencoder: FeatureAutoencoder,
    step: Callable[[], float],
    validate: Callable[[], float] | None,
    *,
    steps: int,
    check_every: int,
    patience: int,
    min_improvement: float,
    progress: bool,
) -> pd.DataFrame:
    """Train for a number of steps, or until the validation loss no longer improves.

    The number does not depend on how many images there are: four images need as many steps as four
    thousand. Of all checks, the weights with the lowest validation loss are restored.

    Parameters
    ----------
    autoencoder : FeatureAutoencoder
        Changed in place.
    step : callable
        Makes one step and returns the training loss of its batch.
    validate : callable or None
        Returns the validation loss. None where no image is held out: then all steps are made, and
        the last weights stay.
    steps : int
        Largest number of steps.
    check_every : int
        Steps between two looks at the validation loss.
    patience : int
        Stop when so many looks in a row have seen no improvement.
    min_improvement : float
        Smallest decrease that counts as an improvement, relative to the best loss so far.
    progress : bool
        Show a progress bar.

    Returns
    -------
    DataFrame
        A row for each look: `step`, `train_loss` (the mean since the look before),
        `validation_loss` (NaN without `validate`).
    """
    history, losses = [], []
    best_loss, best_step, best_state = np.inf, 0, autoencoder.state_dict()
    with tqdm(range(1, steps + 1), desc="training", unit="step", disable=not progress) as bar:
        for i in bar:
            losses.append(step())
            if i % check_every and i < steps:
                continue
            loss = validate() if validate else np.nan
            history.append({"step": i, "train_loss": np.mean(losses), "validation_loss": loss})
            bar.set_postfix(train=f"{np.mean(losses):.4g}", validation=f"{loss:.4g}")
            losses.clear()
            if loss < best_loss * (1 - min_improvement):
                best_step = i
            if loss < best_loss:
                best_loss, best_state = loss, copy.deepcopy(autoencoder.state_dict())
            if validate and i - best_step >= patience * check_every:
                break
    if validate:
        autoencoder.load_state_dict(best_state)
    return pd.DataFrame(history)


def check_fit(features: np.ndarray, validation_fraction: float, **at_least_1: int) -> None:
    """Check the arguments of a fit.

    Raises
    ------
    ValueError
        If there are no features, or a parameter is out of range; the message names it.
    """
    if features.ndim != 4 or not features.size:
        raise ValueError(
            f"features must be a non-empty array of shape (N, C, H, W), not {features.shape}"
        )
    for name, value in at_least_1.items():
        check_range(name, value, at_least=1)
    check_range("validation_fraction", validation_fraction, at_least=0, below=1)


def hold_out(
    images: np.ndarray,
    validation_fraction: float,
    rng: np.random.Generator,
    groups: Sequence[str] | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Choose validation images, in whole groups; of fewer than 20 images, none.

    Returns
    -------
    train, validation : ndarray of int
        Numbers of the images, in ascending order.
    """
    if len(images) < splitting.FEW:
        return images, images[:0]
    of_these = None if groups is None else [groups[i] for i in images]
    train, validation = splitting.split(len(images), validation_fraction, rng, of_these)
    return images[train], images[validation]


def endless_blocks(
    features: np.ndarray, images: np.ndarray, rng: np.random.Generator
) -> Iterator[torch.Tensor]:
    """Yield `blocks` of the images in random order, and begin again for ever."""
    while True:
        yield from blocks(features, rng.permutation(images))
