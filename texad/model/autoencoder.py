"""A simple autoencoder that learns what normal features look like.

It squeezes each feature vector (one place of the feature map, 1024 numbers) through a bottleneck of fewer numbers and
rebuilds it. Trained on defect-free images only, it can rebuild what it has seen and fails on the rest. Every
place is treated alike and alone: this is what 1x1 convolutions do, written as a linear layer over the channels, which is the
same arithmetic and faster.

DFR: deep feature reconstruction for unsupervised anomaly segmentation, Yang, Shi, Qi, 2020, arXiv:2012.07122.
"""

import copy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from tqdm import tqdm

from texad.data import splitting
from texad.io.arrays import release
from texad.io.atomic import write_tensors

DETECTORS = ("published", "extended")  # this module, and texad.model.codebook
BLOCK = 64  # images in memory at a time


class FeatureAutoencoder(nn.Module):
    """What the published and the extended autoencoder have in common.

    Attributes
    ----------
    reduction : str
        Of its score, see `scoring.image_score`.
    widths : dict of str to int
        What it takes to build one that has room for its tensors.
    """

    reduction: str
    widths: dict[str, int]

    def prepare(self, features: torch.Tensor) -> torch.Tensor:
        """What the autoencoder sees of feature maps, (N, C, H, W): all of them, as they are."""
        return features


class Autoencoder(FeatureAutoencoder):
    """Encoder C → hidden → bottleneck, decoder bottleneck → hidden → C, with a ReLU after each hidden layer.

    Parameters
    ----------
    channels : int, default 1024
        C, the length of a feature vector.
    hidden : int, default 512
        Width of the layer between.
    bottleneck : int, default 256
        Numbers that are left of a feature vector in the middle.

    Raises
    ------
    ValueError
        If a width is not positive.
    """

    reduction = "none"

    def __init__(self, channels: int = 1024, hidden: int = 512, bottleneck: int = 256):
        super().__init__()
        for name, width in (("channels", channels), ("hidden", hidden), ("bottleneck", bottleneck)):
            if width < 1:
                raise ValueError(f"{name} must be at least 1, not {width}")
        self.widths = {"channels": channels, "hidden": hidden, "bottleneck": bottleneck}
        self.encoder = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, bottleneck)
        )
        self.decoder = nn.Sequential(
            nn.Linear(bottleneck, hidden), nn.ReLU(), nn.Linear(hidden, channels)
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Reconstruct feature maps: (N, C, H, W) in, the same shape out."""
        vectors = features.permute(
            0, 2, 3, 1
        )  # (N, H, W, C): the linear layers act on the last axis
        return self.decoder(self.encoder(vectors)).permute(0, 3, 1, 2)


def fit(
    features: np.ndarray,
    *,
    hidden: int = 512,
    bottleneck: int = 256,
    epochs: int = 15,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    validation_fraction: float = 0.1,
    patience: int = 3,
    min_improvement: float = 0.01,
    seed: int = 0,
    progress: bool = True,
) -> tuple[Autoencoder, pd.DataFrame]:
    """Train an autoencoder with Adam on the squared reconstruction error.

    The loss is L(θ) = (1/N) Σᵢ ‖Fᵢ − F̂ᵢ‖²: the squared error of a whole feature map, averaged over the images. A step sees a
    batch of vectors drawn from 64 random images, not all vectors of a few images, so that one epoch makes many, varied steps. Only
    these 64 images are in memory.

    Parameters
    ----------
    features : ndarray, float32, shape (N, C, H, W)
        Of defect-free training images. May be memory-mapped.
    hidden, bottleneck : int
        See `Autoencoder`.
    epochs : int, default 15
        At most.
    batch_size : int, default 256
        Feature vectors in one step.
    learning_rate : float, default 0.001
    validation_fraction : float, default 0.1
        Part of the images kept out of the training to decide when to stop; at least one image, where there are two.
    patience : int, default 3
        Stop when the validation loss has not improved for so many epochs.
    min_improvement : float, default 0.01
        What counts as an improvement, relative to the best validation loss so far.
    seed : int, default 0
        Of the initial weights, the split and the order.
    progress : bool, default True
        Show a progress bar.

    Returns
    -------
    autoencoder : Autoencoder
        With the weights of the epoch with the lowest validation loss; in eval mode, on the CPU.
    history : DataFrame
        A row an epoch: `epoch`, `train_loss` (averaged while training), `validation_loss`.

    Raises
    ------
    ValueError
        If there are no features, they are not finite, or a parameter is out of range.
    """
    check(features, validation_fraction, epochs=epochs, batch_size=batch_size, patience=patience)
    if learning_rate <= 0:
        raise ValueError(f"learning_rate must be positive, not {learning_rate}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    n_images, channels, height, width = features.shape
    vectors = features.transpose(0, 2, 3, 1)  # (N, H, W, C), as they lie in the file
    places = height * width

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        autoencoder = Autoencoder(channels, hidden, bottleneck).to(device)
    rng = np.random.default_rng(seed)
    train, validation = split(rng, n_images, validation_fraction)
    optimizer = torch.optim.Adam(autoencoder.parameters(), lr=learning_rate, fused=True)

    def blocks(
        images: np.ndarray,
    ) -> Iterator[torch.Tensor]:  # each (n·H·W, C), of at most BLOCK images
        for start in range(0, len(images), BLOCK):
            yield torch.from_numpy(vectors[images[start : start + BLOCK]].reshape(-1, channels)).to(
                device
            )
            release(features)

    def loss_of(
        batch: torch.Tensor,
    ) -> torch.Tensor:  # mean squared error of a vector, summed over channels and places
        return (
            torch.square(batch - autoencoder.decoder(autoencoder.encoder(batch))).sum(dim=1).mean()
            * places
        )

    history, best_loss, best_epoch, best_state = [], np.inf, 0, autoencoder.state_dict()
    with tqdm(range(1, epochs + 1), desc="training", unit="epoch", disable=not progress) as bar:
        for epoch in bar:
            autoencoder.train()
            train_loss = validation_loss = 0.0
            for block in blocks(rng.permutation(train)):
                for rows in torch.from_numpy(rng.permutation(len(block))).split(batch_size):
                    loss = loss_of(block[rows])
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    train_loss += loss.item() * len(rows) / (len(train) * places)

            autoencoder.eval()
            with torch.inference_mode():
                for block in blocks(validation):
                    for part in block.split(
                        batch_size
                    ):  # a block's reconstruction would take as much memory as the block, several times
                        validation_loss += (
                            loss_of(part).item() * len(part) / (len(validation) * places)
                        )
            if not np.isfinite(validation_loss):
                if not all(torch.isfinite(block).all() for block in blocks(np.arange(n_images))):
                    raise ValueError("features must be finite, and some are not: make them again")
                raise ValueError(
                    f"the training diverged in epoch {epoch}; use a smaller learning_rate than {learning_rate}"
                )
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
    return autoencoder.cpu().eval().requires_grad_(False), pd.DataFrame(history)


def save(autoencoder: FeatureAutoencoder, file: Path) -> None:
    """Write an autoencoder, published or extended, as safetensors, its widths in the metadata."""
    write_tensors(
        file,
        autoencoder.state_dict(),
        {name: str(width) for name, width in autoencoder.widths.items()},
    )


def load(file: Path) -> FeatureAutoencoder:
    """Read an autoencoder that `save` wrote.

    Returns
    -------
    Autoencoder or extended.QuantizedAutoencoder
        In eval mode, on the CPU.

    Raises
    ------
    ValueError
        If the file is no such autoencoder.
    """
    try:
        with safe_open(file, framework="pt") as stored:
            widths = {name: int(width) for name, width in stored.metadata().items()}
            return build({name: stored.get_tensor(name) for name in stored.keys()}, widths)
    except (
        SafetensorError,
        OSError,
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        RuntimeError,
    ) as error:
        raise ValueError(f"{file} is no autoencoder of texad ({error}); train it again") from error


def build(tensors: dict[str, torch.Tensor], widths: dict[str, int]) -> FeatureAutoencoder:
    """An autoencoder, published or extended, from its tensors and widths, in eval mode; TypeError or RuntimeError if they do not fit."""
    from texad.model.codebook import QuantizedAutoencoder  # here, since it builds on this module

    autoencoder: FeatureAutoencoder = (
        QuantizedAutoencoder(**widths) if "words" in widths else Autoencoder(**widths)
    )
    autoencoder.load_state_dict(tensors)
    return autoencoder.eval().requires_grad_(False)


def split(
    rng: np.random.Generator, n_images: int, validation_fraction: float
) -> tuple[np.ndarray, np.ndarray]:
    """Choose whole images, since the places of one image resemble each other; a lone image validates itself."""
    train, validation = splitting.split(n_images, validation_fraction, rng)
    return train, (validation if len(validation) else train)


def check(features: np.ndarray, validation_fraction: float, **at_least_1: int) -> None:
    """Raise a ValueError that names what is wrong with the arguments of a fit."""
    if features.ndim != 4 or not features.size:
        raise ValueError(
            f"features must be a non-empty array of shape (N, C, H, W), not {features.shape}"
        )
    for name, value in at_least_1.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    if not 0 < validation_fraction < 1:
        raise ValueError(f"validation_fraction must lie between 0 and 1, not {validation_fraction}")
