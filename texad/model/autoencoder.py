"""A simple autoencoder that learns what normal features look like.

It squeezes each feature vector (one place of the feature map, 1024 numbers) through a bottleneck of
fewer numbers and rebuilds it. Trained on defect-free images only, it can rebuild what it has seen
and fails on the rest. Every place is treated alike and alone: this is what 1x1 convolutions do,
written as a linear layer over the channels, which is the same arithmetic and faster.

DFR: deep feature reconstruction for unsupervised anomaly segmentation, Yang, Shi, Qi, 2020,
arXiv:2012.07122.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from torch import nn

from texad.errors import check_range
from texad.model.base import (
    FeatureAutoencoder,
    blocks,
    check_fit,
    device,
    hold_out,
    train_with_early_stopping,
)


class Autoencoder(FeatureAutoencoder):
    """Encoder C → hidden → bottleneck and decoder bottleneck → hidden → C.

    There is a ReLU after each hidden layer.

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
            check_range(name, width, at_least=1)
        self.widths = {"channels": channels, "hidden": hidden, "bottleneck": bottleneck}
        self.encoder = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, bottleneck)
        )
        self.decoder = nn.Sequential(
            nn.Linear(bottleneck, hidden), nn.ReLU(), nn.Linear(hidden, channels)
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Reconstruct feature maps: (N, C, H, W) in, the same shape out."""
        # (N, H, W, C): the linear layers act on the last axis
        vectors = features.permute(0, 2, 3, 1)
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

    The loss is L(θ) = (1/N) Σᵢ ‖Fᵢ − F̂ᵢ‖²: the squared error of a whole feature map, averaged over
    the images. A step sees a batch of vectors drawn from 64 random images, not all vectors of a few
    images, so that one epoch makes many, varied steps. Only these 64 images are in memory.

    Parameters
    ----------
    features : ndarray, float32, shape (N, C, H, W)
        Features of defect-free training images. May be memory-mapped.
    hidden, bottleneck : int
        See `Autoencoder`.
    epochs : int, default 15
        At most.
    batch_size : int, default 256
        Feature vectors in one step.
    learning_rate : float, default 0.001
    validation_fraction : float, default 0.1
        Fraction of the images kept out of the training to decide when to stop; at least one image,
        where there are two.
    patience : int, default 3
        Stop when the validation loss has not improved for so many epochs.
    min_improvement : float, default 0.01
        What counts as an improvement, relative to the best validation loss so far.
    seed : int, default 0
        Seed of the initial weights, the split and the order.
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
    check_fit(
        features, validation_fraction, epochs=epochs, batch_size=batch_size, patience=patience
    )
    check_range("learning_rate", learning_rate, above=0)
    n_images, channels, height, width = features.shape
    places = height * width
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        autoencoder = Autoencoder(channels, hidden, bottleneck).to(device())
    rng = np.random.default_rng(seed)
    train, validation = hold_out(rng, n_images, validation_fraction)
    optimizer = torch.optim.Adam(autoencoder.parameters(), lr=learning_rate, fused=True)

    def vectors(images: np.ndarray) -> Iterator[torch.Tensor]:  # each (n·H·W, C)
        return (block.reshape(-1, channels) for block in blocks(features, images))

    def loss_of(batch: torch.Tensor) -> torch.Tensor:
        # the squared error of a vector, summed over channels and places, averaged over the batch
        reconstruction = autoencoder.decoder(autoencoder.encoder(batch))
        return torch.square(batch - reconstruction).sum(dim=1).mean() * places

    def train_epoch(epoch: int) -> tuple[float, float]:
        train_loss = validation_loss = 0.0
        for block in vectors(rng.permutation(train)):
            for rows in torch.from_numpy(rng.permutation(len(block))).split(batch_size):
                loss = loss_of(block[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                train_loss += loss.item() * len(rows) / (len(train) * places)
        with torch.inference_mode():
            for block in vectors(validation):
                for part in block.split(batch_size):  # a whole block would take much memory
                    share = len(part) / (len(validation) * places)
                    validation_loss += loss_of(part).item() * share
        if not np.isfinite(validation_loss):
            if not all(torch.isfinite(block).all() for block in vectors(np.arange(n_images))):
                raise ValueError("features must be finite, and some are not: make them again")
            raise ValueError(
                f"the training diverged in epoch {epoch}; "
                f"use a smaller learning_rate than {learning_rate}"
            )
        return train_loss, validation_loss

    history = train_with_early_stopping(
        autoencoder,
        train_epoch,
        epochs=epochs,
        patience=patience,
        min_improvement=min_improvement,
        progress=progress,
    )
    return autoencoder.cpu().eval().requires_grad_(False), history
