"""From a reconstruction to numbers: error map, anomaly map, score.

F is a feature map, F̂ (`reconstruction`) what the autoencoder made of it, both (N, C, H, W). The
autoencoder cannot reconstruct what it has never seen, so the error is large where the surface is
not normal.
"""

from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from texad.errors import check_choice, check_range
from texad.io.arrays import release
from texad.model.base import FeatureAutoencoder, at_once
from texad.model.cross import CrossFitted, members

REDUCTIONS = ("none", "channel_mean", "local_and_global")


def error_map(features: np.ndarray, reconstruction: np.ndarray) -> np.ndarray:
    """Error map E = (F − F̂)², entry by entry.

    Parameters
    ----------
    features, reconstruction : ndarray, float32, shape (N, C, H, W)

    Returns
    -------
    ndarray, float32, shape (N, C, H, W)
    """
    return np.square(features - reconstruction)


def anomaly_map(errors: np.ndarray) -> np.ndarray:
    """Anomaly map: the mean error over the channels of each place.

    Parameters
    ----------
    errors : ndarray, shape (N, C, H, W)

    Returns
    -------
    ndarray, shape (N, H, W)
    """
    return errors.mean(axis=1)


def image_score(errors: np.ndarray, top_k: int = 10, reduction: str = "none") -> np.ndarray:
    """Anomaly score: the mean of the `top_k` largest errors of an image.

    A defect covers a few places only. The mean over all of them would drown it, the single largest
    would be noise; the mean of the ten largest is between the two. Places that are missing (NaN)
    have no part in any mean.

    Parameters
    ----------
    errors : ndarray, shape (N, C, H, W)
        Missing places are NaN in all channels.
    top_k : int, default 10
        How many of the largest values to average; of an image with fewer, all.
    reduction : {"none", "channel_mean", "local_and_global"}, default "none"
        "none" reads the method literally: the largest of all C·H·W values. "channel_mean" averages
        over the channels first, and then takes the largest of the H·W values of the anomaly map.
        "local_and_global", the extended detector's, adds to that the mean of the whole anomaly map:
        some defects are everywhere, and nowhere large.

    Returns
    -------
    ndarray, shape (N,)

    Raises
    ------
    ValueError
        If `reduction` is unknown, or `top_k` is not between 1 and the number of values that a whole
        image has.

    Examples
    --------
    >>> errors = np.arange(8.0).reshape(1, 2, 2, 2)  # one image, 2 channels, 2 × 2 places
    >>> image_score(errors, top_k=2)  # the mean of 7 and 6
    array([6.5])
    >>> image_score(errors, top_k=2, reduction="channel_mean")  # of 2, 3, 4 and 5
    array([4.5])
    """
    check_choice("reduction", reduction, REDUCTIONS)
    values = (errors if reduction == "none" else anomaly_map(errors)).reshape(len(errors), -1)
    hint = "the number of errors of an image"
    check_range("top_k", top_k, at_least=1, at_most=values.shape[1], hint=hint)

    def score(values: np.ndarray, top_k: int) -> np.ndarray:
        local = np.partition(values, -top_k, axis=1)[:, -top_k:].mean(axis=1)
        return local + values.mean(axis=1) if reduction == "local_and_global" else local

    missing = np.isnan(values)
    if not missing.any():
        return score(values, top_k)
    scores = np.full(len(values), np.nan, dtype=values.dtype)  # NaN where nothing is there
    for i, of_image in enumerate(values):
        there = of_image[~missing[i]]
        if there.size:
            scores[i] = score(there[None], min(top_k, there.size))[0]
    return scores


@torch.inference_mode()
def prepare(autoencoder: FeatureAutoencoder, features: np.ndarray) -> np.ndarray:
    """Return F as the autoencoder sees it: (N, C, H, W), float32, in and out."""
    return autoencoder.prepare(torch.from_numpy(np.array(features))).numpy()


@torch.inference_mode()
def reconstruct(autoencoder: nn.Module, features: np.ndarray) -> np.ndarray:
    """Reconstruct features: F̂ = D(E(F)).

    Parameters
    ----------
    autoencoder : nn.Module
        Takes and gives (N, C, H, W).
    features : ndarray, float32, shape (N, C, H, W)
        As from `prepare`.

    Returns
    -------
    ndarray, float32, shape (N, C, H, W)
    """
    return autoencoder(torch.from_numpy(np.array(features))).numpy()


@torch.inference_mode()
def score_features(
    autoencoder: FeatureAutoencoder | CrossFitted,
    features: np.ndarray,
    *,
    images: np.ndarray | None = None,
    top_k: int = 10,
    reduction: str | None = None,
    batch_size: int = 8,
    progress: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Score many images, a batch at a time, so that the errors of only one batch are in memory.

    Parameters
    ----------
    autoencoder : FeatureAutoencoder or CrossFitted
        Of several models, the one to which an image looks least strange answers.
    features : ndarray, float32, shape (N, C, H, W)
        May be memory-mapped, and may be empty.
    images : ndarray of int, shape (n,), optional
        Numbers of the images to score; by default all.
    top_k, reduction
        See `image_score`; without a reduction, the autoencoder's own.
    batch_size : int, default 8
        Images at a time. The errors of an image take 0.8 MB at the usual size, and are copied
        several times: larger batches take more memory, and are no faster. Of large images, fewer.
    progress : bool, default True
        Show a progress bar.

    Returns
    -------
    scores : ndarray, float32, shape (n,)
    maps : ndarray, float32, shape (n, H, W)
        Anomaly maps.
    """
    images = np.arange(len(features)) if images is None else images
    scores = np.empty(len(images), dtype=np.float32)
    maps = np.empty((len(images), *features.shape[2:]), dtype=np.float32)
    in_file_order, batch_size = features.transpose(0, 2, 3, 1), at_once(features, batch_size)
    for start in tqdm(
        range(0, len(images), batch_size), desc="scoring", unit="batch", disable=not progress
    ):
        part = slice(start, start + batch_size)
        batch = torch.from_numpy(in_file_order[images[part]]).permute(0, 3, 1, 2)
        release(features)
        scores[part] = np.inf
        for model in members(autoencoder):
            prepared = model.prepare(batch)
            errors = error_map(prepared.numpy(), model(prepared).numpy())
            by_model = image_score(errors, top_k, reduction or model.reduction)
            is_lower = by_model < scores[part]
            scores[part][is_lower] = by_model[is_lower]
            maps[part][is_lower] = anomaly_map(errors[is_lower])
    return scores, maps


def score_held_out(
    fitted: CrossFitted, features: np.ndarray, **options: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Score each training image by the model that has not seen it.

    Parameters
    ----------
    fitted : CrossFitted
    features : ndarray, float32, shape (n, C, H, W)
        That it was fit to.
    **options
        See `score_features`.

    Returns
    -------
    scores : ndarray, float32, shape (n,)
    maps : ndarray, float32, shape (n, H, W)
    """
    scores = np.empty(len(features), dtype=np.float32)
    maps = np.empty((len(features), *features.shape[2:]), dtype=np.float32)
    for fold, model in enumerate(members(fitted)):
        images = np.flatnonzero(fitted.folds.numpy() == fold)
        scores[images], maps[images] = score_features(model, features, images=images, **options)
    return scores, maps
