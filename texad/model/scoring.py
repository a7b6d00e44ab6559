"""From a reconstruction to a decision: error map, anomaly map, score, threshold.

Arrays in, arrays out; nothing here knows of files. F is a feature map, F̂ (`reconstruction`) what the autoencoder
made of it, both (N, C, H, W). What the autoencoder has never seen it cannot reconstruct, so the error is large where
the surface is not normal.

Three rules set the threshold, all from defect-free images alone. "sigma", the published one, is mean + 3 standard deviations of the
scores of the images that the autoencoder was fit to. "held_out" is the same of calibration images, which were kept out of the fit.
"conformal" takes a quantile of the calibration scores, and promises that a good image is rejected with a probability of at most
false_alarms, however the scores are distributed.

The promise needs one assumption: the calibration images and the new good image are exchangeable, that is, every order of them is
equally likely. Split conformal prediction: Papadopoulos, Proedrou, Vovk, Gammerman, "Inductive confidence machines for regression",
ECML 2002; Vovk, Gammerman, Shafer, "Algorithmic learning in a random world", Springer 2005; as p-values for outliers: Bates, Candès,
Lei, Romano, Sesia, "Testing for outliers with conformal p-values", Annals of Statistics 51, 2023.
"""

import math
from fractions import Fraction

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from texad.io.arrays import release
from texad.model.autoencoder import FeatureAutoencoder

REDUCTIONS = ("none", "channel_mean", "local_and_global")
RULES = ("sigma", "held_out", "conformal")


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
    """Score = mean of the `top_k` largest errors of an image, with the extended detector's addition if wanted.

    A defect covers a few places only. The mean over all of them would drown it, the single largest would be noise; the mean
    of the ten largest is between the two.

    Parameters
    ----------
    errors : ndarray, shape (N, C, H, W)
    top_k : int, default 10
        How many of the largest values to average.
    reduction : {"none", "channel_mean", "local_and_global"}, default "none"
        "none" reads the method literally: the largest of all C·H·W values. "channel_mean" averages over the channels
        first, and then takes the largest of the H·W values of the anomaly map. "local_and_global" adds to that the mean of the
        whole anomaly map: some defects are everywhere, and nowhere large.

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
        raise ValueError(
            f"top_k must be between 1 and {values.shape[1]}, the number of errors of an image, not {top_k}"
        )
    local = np.partition(values, -top_k, axis=1)[:, -top_k:].mean(axis=1)
    return local + values.mean(axis=1) if reduction == "local_and_global" else local


def threshold(scores: np.ndarray, n_sigma: float = 3.0) -> float:
    """Threshold = μ + 3σ of the scores of defect-free images.

    Of the images that the autoencoder was fit to, it is the rule "sigma"; of images that were kept out of the fit, "held_out".

    Parameters
    ----------
    scores : ndarray, shape (N,)
    n_sigma : float, default 3.0
        How many standard deviations above the mean. σ is the population standard deviation (divided by N, not N − 1).

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If there is no score, or one of them or `n_sigma` is not finite.
    """
    if not math.isfinite(n_sigma):
        raise ValueError(f"n_sigma must be a finite number, for instance 3, not {n_sigma}")
    scores = _finite(scores, "scores")
    if scores.size == 0:
        raise ValueError("scores must hold at least one score")
    return float(scores.mean() + n_sigma * scores.std())


def p_values(calibration_scores: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """How unusual each score is among those of good images: p = (1 + number of calibration scores ≥ s) / (n + 1).

    If the image is good and exchangeable with the calibration images, then P(p ≤ α) ≤ α for every α: its rank among them is as
    likely to be any as any other. The 1 counts the image itself. Bates et al. 2023.

    Parameters
    ----------
    calibration_scores : ndarray, shape (n,)
        Of defect-free images that the autoencoder was not fit to.
    scores : ndarray, shape (M,)
        Of the images to judge.

    Returns
    -------
    ndarray, float64, shape (M,)
        From 1 / (n + 1) to 1. Without calibration images all are 1: nothing is known against any image.

    Raises
    ------
    ValueError
        If a score is not finite.
    """
    calibration, scores = (
        np.sort(_finite(calibration_scores, "calibration_scores")),
        _finite(scores, "scores"),
    )
    n_at_least = len(calibration) - np.searchsorted(calibration, scores, side="left")
    return (1 + n_at_least) / (len(calibration) + 1)


def images_needed(false_alarms: float) -> int:
    """The fewest calibration images with which a p-value can be as small as `false_alarms`: ⌈1/α⌉ − 1.

    Raises
    ------
    ValueError
        If `false_alarms` does not lie between 0 and 1.
    """
    if not 0 < false_alarms < 1:
        raise ValueError(
            f"false_alarms, the false-alarm rate, must lie between 0 and 1, not {false_alarms}"
        )
    near = math.ceil(
        1 / Fraction(float(false_alarms))
    )  # exact, where 1 / false_alarms would be rounded, or too large for a float
    return (
        near - 1 - (1 / (near - 1) <= false_alarms)
    )  # 1/m rounded, as p-values are, decides: as a float, 1/3 is less than a third


def conformal_threshold(calibration_scores: np.ndarray, false_alarms: float = 0.05) -> float:
    """Threshold = the ⌈(n + 1)(1 − α)⌉-th smallest calibration score; a good image lies above it with a probability of at most α.

    A score is above this threshold exactly when its p-value is at most α. The promise holds for any distribution of the scores and any n,
    on the average over all choices of calibration images and new image. Given *these* calibration images the rate is a little
    smaller or larger (Angelopoulos and Bates, "Conformal prediction: a gentle introduction", Foundations and Trends in Machine
    Learning 16, 2023, section 3.2).

    Parameters
    ----------
    calibration_scores : ndarray, shape (n,)
        Of defect-free images that the autoencoder was not fit to.
    false_alarms : float, default 0.05
        The false-alarm rate.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If `false_alarms` does not lie between 0 and 1, there are too few images for it, or a score is not finite.
    """
    calibration = np.sort(_finite(calibration_scores, "calibration_scores"))
    n, needed = len(calibration), images_needed(false_alarms)
    if n < needed:
        raise ValueError(
            f"false_alarms = {false_alarms} needs at least {needed} calibration images, and there are {n}: "
            "keep more out of the fit (calibration_fraction), or choose a larger false_alarms"
        )
    # ⌊(n + 1)α⌋, counted instead of computed: (n + 1) · 0.29 would fall short of 29 for n = 99
    n_rejecting = int(np.sum(np.arange(1, n + 1) / (n + 1) <= false_alarms))
    return float(calibration[n - n_rejecting])


def cross_conformal_p_values(
    held_out_scores: np.ndarray, folds: np.ndarray, test_scores: np.ndarray
) -> np.ndarray:
    """p-values when there are too few images to keep some out: every image is held out once.

    The images are dealt into K folds, and for each fold a model is fit to the other folds. An image to judge is compared with each
    good image under the one model that has seen neither:

        p = (1 + number of i with held_out_scores[i] ≥ test_scores[folds[i]]) / (n + 1)

    The models differ, so the promise is weaker than that of `p_values`: for a good image P(p ≤ α) is at most 2α for K = n, and
    at most 2α + min{2(1 − 1/K) / (n/K + 1), (1 − K/n) / (K + 1)} for K folds of one size; in practice it is near α. Cross-conformal: Vovk, "Cross-conformal
    predictors", Annals of Mathematics and Artificial Intelligence 74, 2015. The bounds: Barber, Candès, Ramdas, Tibshirani, "Predictive
    inference with the jackknife+", Annals of Statistics 49, 2021, theorems 1 and 4.

    Parameters
    ----------
    held_out_scores : ndarray, shape (n,)
        Each good image's score by the model that was not fit to it.
    folds : ndarray of int, shape (n,)
        The fold of each good image, from 0 to K − 1.
    test_scores : ndarray, shape (K, M)
        The images to judge, each scored by the model of each fold.

    Returns
    -------
    ndarray, float64, shape (M,)

    Raises
    ------
    ValueError
        If the shapes do not fit, a fold has no model, or a score is not finite.
    """
    held_out, test = (
        _finite(held_out_scores, "held_out_scores"),
        _finite(test_scores, "test_scores"),
    )
    folds = np.asarray(folds)
    if held_out.ndim != 1 or folds.shape != held_out.shape or test.ndim != 2:
        raise ValueError(
            "held_out_scores and folds must have shape (n,), and test_scores (K, M), "
            f"not {held_out.shape}, {folds.shape} and {test.shape}"
        )
    if not np.isin(folds, np.arange(len(test))).all():
        raise ValueError(
            f"folds must be whole numbers from 0 to {len(test) - 1}, one for each row of test_scores"
        )
    n_at_least = np.zeros(test.shape[1], dtype=int)
    for fold, by_its_model in enumerate(test):
        own = np.sort(held_out[folds == fold])
        n_at_least += len(own) - np.searchsorted(own, by_its_model, side="left")
    return (1 + n_at_least) / (len(held_out) + 1)


def thresholds(
    train_scores: np.ndarray,
    calibration_scores: np.ndarray,
    n_sigma: float = 3.0,
    false_alarms: float = 0.05,
) -> dict[str, float | None]:
    """The threshold of each rule; None where there are too few calibration images for it.

    Parameters
    ----------
    train_scores, calibration_scores : ndarray, shape (N,) and (n,)
        Of defect-free images that the autoencoder was fit to, and was not fit to; the latter may be empty.
    n_sigma : float, default 3.0
    false_alarms : float, default 0.05

    Returns
    -------
    dict of str to float or None
        Keys as in `RULES`.

    Raises
    ------
    ValueError
        If `false_alarms` does not lie between 0 and 1, there is no training score, or a score is not finite.
    """
    n = len(calibration_scores)
    return {
        "sigma": threshold(train_scores, n_sigma),
        "held_out": threshold(calibration_scores, n_sigma)
        if n >= _fewest("held_out", false_alarms)
        else None,
        "conformal": conformal_threshold(calibration_scores, false_alarms)
        if n >= _fewest("conformal", false_alarms)
        else None,
    }


def default_rule(detector: str, n_calibration: int, false_alarms: float = 0.05) -> str:
    """The rule, one of `RULES`, that decides if the user names none.

    The published method is kept as it was published: "sigma". The extended detector knows its own training images too well for
    that, and takes the first of "conformal", "held_out" and "sigma" for which there are calibration images enough.
    """
    wanted = ("sigma",) if detector == "published" else ("conformal", "held_out", "sigma")
    return next(rule for rule in wanted if n_calibration >= _fewest(rule, false_alarms))


def check_rule(rule: str, n_calibration: int, false_alarms: float = 0.05) -> None:
    """Make sure that a rule can set a threshold, before anything is computed for it.

    Parameters
    ----------
    rule : str
        One of `RULES`.
    n_calibration : int
    false_alarms : float, default 0.05

    Raises
    ------
    ValueError
        If there is no such rule, `false_alarms` does not lie between 0 and 1, or the rule needs more calibration images.
    """
    if rule not in RULES:
        raise ValueError(f"rule must be one of {', '.join(RULES)}, not {rule!r}")
    needed = _fewest(rule, false_alarms)
    if n_calibration < needed:
        raise ValueError(
            f"rule {rule} needs at least {needed} calibration images{f' for false_alarms = {false_alarms}' if rule == 'conformal' else ''}, and there "
            f"are {n_calibration}: keep more out of the fit (calibration_fraction), or choose rule sigma"
        )


def predict(scores: np.ndarray, threshold: float) -> np.ndarray:
    """Predicted anomalous: score > threshold.

    Returns
    -------
    ndarray, bool, shape (N,)
    """
    return np.asarray(scores) > threshold


@torch.inference_mode()
def prepare(autoencoder: FeatureAutoencoder, features: np.ndarray) -> np.ndarray:
    """F as the autoencoder sees it, unchanged for the published one: (N, C, H, W), float32, in and out."""
    return autoencoder.prepare(torch.from_numpy(np.array(features))).numpy()


@torch.inference_mode()
def reconstruct(autoencoder: nn.Module, features: np.ndarray) -> np.ndarray:
    """F̂ = D(E(F)).

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


def score_features(
    autoencoder: FeatureAutoencoder,
    features: np.ndarray,
    *,
    top_k: int = 10,
    reduction: str | None = None,
    batch_size: int = 8,
    progress: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Score many images, a batch at a time, so that the errors of only one batch are in memory.

    Parameters
    ----------
    autoencoder : FeatureAutoencoder
    features : ndarray, float32, shape (N, C, H, W)
        May be memory-mapped, and may be empty.
    top_k, reduction
        As in `image_score`; without a reduction, the autoencoder's own.
    batch_size : int, default 8
        Images at a time. The errors of an image take 0.8 MB at the usual size, and are copied several times: larger batches take more memory, and
        are no faster.
    progress : bool, default True
        Show a progress bar.

    Returns
    -------
    scores : ndarray, float32, shape (N,)
    maps : ndarray, float32, shape (N, H, W)
        The anomaly maps.
    """
    scores = np.empty(len(features), dtype=np.float32)
    maps = np.empty((len(features), *features.shape[2:]), dtype=np.float32)
    for start in tqdm(
        range(0, len(features), batch_size), desc="scoring", unit="batch", disable=not progress
    ):
        batch = prepare(autoencoder, features[start : start + batch_size])
        release(features)
        errors = error_map(batch, reconstruct(autoencoder, batch))
        scores[start : start + batch_size] = image_score(
            errors, top_k, reduction or autoencoder.reduction
        )
        maps[start : start + batch_size] = anomaly_map(errors)
    return scores, maps


def _fewest(rule: str, false_alarms: float) -> int:
    """Calibration images that a rule needs; one alone has no standard deviation."""
    return {"sigma": 0, "held_out": 2, "conformal": images_needed(false_alarms)}[rule]


def _finite(scores: np.ndarray, name: str) -> np.ndarray:
    scores = np.asarray(scores, dtype=np.float64)
    if not np.isfinite(scores).all():
        raise ValueError(
            f"{name} must be finite, and {np.sum(~np.isfinite(scores))} of {scores.size} are not"
        )
    return scores
