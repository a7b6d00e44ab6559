"""Base of all autoencoders of features: their interface, and one way to train and to stop."""

import copy
from collections.abc import Callable, Iterator

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


def blocks(features: np.ndarray, images: np.ndarray) -> Iterator[torch.Tensor]:
    """Yield the features of some images, at most 64 images at a time.

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
    in_file_order = features.transpose(0, 2, 3, 1)
    for start in range(0, len(images), BLOCK):
        block = torch.from_numpy(in_file_order[images[start : start + BLOCK]])
        release(features)
        yield block.to(device())


def train_with_early_stopping(
    autoencoder: FeatureAutoencoder,
    train_epoch: Callable[[int], tuple[float, float]],
    *,
    epochs: int,
    patience: int,
    min_improvement: float,
    progress: bool,
) -> pd.DataFrame:
    """Train until the validation loss no longer improves, and restore the best epoch's weights.

    Parameters
    ----------
    autoencoder : FeatureAutoencoder
        Changed in place.
    train_epoch : callable
        Takes the number of the epoch, from 1; trains for one epoch and returns the training loss
        and the validation loss.
    epochs : int
        Largest number of epochs.
    patience : int
        Stop when the validation loss has not improved for so many epochs.
    min_improvement : float
        Smallest decrease that counts as an improvement, relative to the best loss so far.
    progress : bool
        Show a progress bar.

    Returns
    -------
    DataFrame
        A row for each epoch: `epoch`, `train_loss`, `validation_loss`.
    """
    history, best_loss, best_epoch, best_state = [], np.inf, 0, autoencoder.state_dict()
    with tqdm(range(1, epochs + 1), desc="training", unit="epoch", disable=not progress) as bar:
        for epoch in bar:
            train_loss, validation_loss = train_epoch(epoch)
            history.append(
                {"epoch": epoch, "train_loss": train_loss, "validation_loss": validation_loss}
            )
            bar.set_postfix(train=f"{train_loss:.4g}", validation=f"{validation_loss:.4g}")
            if validation_loss < best_loss * (1 - min_improvement):
                best_epoch = epoch
            if validation_loss < best_loss:
                best_loss, best_state = validation_loss, copy.deepcopy(autoencoder.state_dict())
            if epoch - best_epoch >= patience:
                break
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
    check_range("validation_fraction", validation_fraction, above=0, below=1)


def hold_out(
    rng: np.random.Generator, n_images: int, validation_fraction: float
) -> tuple[np.ndarray, np.ndarray]:
    """Choose validation images; a lone image validates itself.

    Whole images are held out, since the places of one image resemble each other.

    Returns
    -------
    train, validation : ndarray of int
        Numbers of the images, in ascending order.
    """
    train, validation = splitting.split(n_images, validation_fraction, rng)
    return train, (validation if len(validation) else train)
