"""From a reconstruction to a decision: error map, anomaly map, score, threshold.

Arrays in, arrays out; nothing here knows of files or networks. F is a feature map, F̂ (`reconstruction`) what the autoencoder
made of it, both (N, C, H, W). What the autoencoder has never seen it cannot reconstruct, so the error is large where
the surface is not normal.
"""

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

REDUCTIONS = ("none", "channel_mean")


def error_map(features: np.ndarray, reconstruction: np.ndarray) -> np.ndarray:
    """E = (F − F̂)², entry by entry.

    Parameters
    ----------
    features, reconstruction : ndarray, float32, shape (N, C, H, W)

    Returns
    -------
    ndarray, float32, shape (N, C, H, W)
    """
    return np.square(features - reconstruction)


def anomaly_map(errors: np.ndarray) -> np.ndarray:
    """The mean error over the channels of each place: where on the surface the autoencoder fails.

    Parameters
    ----------
    errors : ndarray, shape (N, C, H, W)

    Returns
    -------
    ndarray, shape (N, H, W)
    """
    return errors.mean(axis=1)


def image_score(errors: np.ndarray, top_k: int = 10, reduction: str = "none") -> np.ndarray:
    """Score = mean of the `top_k` largest errors of an image.

    A defect covers a few places only. The mean over all of them would drown it, the single largest would be noise; the mean
    of the ten largest is between the two.

    Parameters
    ----------
    errors : ndarray, shape (N, C, H, W)
    top_k : int, default 10
        How many of the largest values to average.
    reduction : {"none", "channel_mean"}, default "none"
        "none" reads the method literally: the largest of all C·H·W values. "channel_mean" averages over the channels
        first, and then takes the largest of the H·W values of the anomaly map.

    Returns
    -------
    ndarray, shape (N,)

    Raises
    ------
    ValueError
        If `reduction` is unknown, or `top_k` is not between 1 and the number of values.
    """
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, not {reduction!r}")
    values = errors if reduction == "none" else anomaly_map(errors)
    values = values.reshape(len(values), -1)
    if not 1 <= top_k <= values.shape[1]:
        raise ValueError(f"top_k must be between 1 and {values.shape[1]}, the number of errors of an image, not {top_k}")
    return np.partition(values, -top_k, axis=1)[:, -top_k:].mean(axis=1)


def threshold(train_scores: np.ndarray, n_sigma: float = 3.0) -> float:
    """Threshold = μ + 3σ of the training images' scores.

    Parameters
    ----------
    train_scores : ndarray, shape (N,)
        Scores of defect-free training images.
    n_sigma : float, default 3.0
        How many standard deviations above the mean. σ is the population standard deviation (divided by N, not N − 1).

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If there is no score, or one of them is not finite.
    """
    scores = np.asarray(train_scores, dtype=np.float64)
    if scores.size == 0 or not np.isfinite(scores).all():
        raise ValueError("train_scores must hold at least one score, all of them finite")
    return float(scores.mean() + n_sigma * scores.std())


def predict(scores: np.ndarray, threshold: float) -> np.ndarray:
    """Predicted anomalous: score > threshold.

    Returns
    -------
    ndarray, bool, shape (N,)
    """
    return np.asarray(scores) > threshold


@torch.inference_mode()
def reconstruct(autoencoder: nn.Module, features: np.ndarray) -> np.ndarray:
    """F̂ = D(E(F)).

    Parameters
    ----------
    autoencoder : nn.Module
        Takes and gives (N, C, H, W).
    features : ndarray, float32, shape (N, C, H, W)

    Returns
    -------
    ndarray, float32, shape (N, C, H, W)
    """
    return autoencoder(torch.from_numpy(np.array(features))).numpy()


def score_features(
    autoencoder: nn.Module,
    features: np.ndarray,
    *,
    top_k: int = 10,
    reduction: str = "none",
    batch_size: int = 32,
    progress: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Score many images, a batch at a time, so that the errors of only one batch are in memory.

    Parameters
    ----------
    autoencoder : nn.Module
    features : ndarray, float32, shape (N, C, H, W)
        May be memory-mapped.
    top_k, reduction
        As in `image_score`.
    batch_size : int, default 32
    progress : bool, default True
        Show a progress bar.

    Returns
    -------
    scores : ndarray, float32, shape (N,)
    maps : ndarray, float32, shape (N, H, W)
        The anomaly maps.
    """
    scores, maps = [], []
    for start in tqdm(range(0, len(features), batch_size), desc="scoring", unit="batch", disable=not progress):
        batch = np.array(features[start : start + batch_size])
        errors = error_map(batch, reconstruct(autoencoder, batch))
        scores.append(image_score(errors, top_k, reduction))
        maps.append(anomaly_map(errors))
    return np.concatenate(scores), np.concatenate(maps)
