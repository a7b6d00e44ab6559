"""From scores to a decision: three rules that set a threshold, and p-values.

All rules use defect-free images alone. "sigma", the published one, is mean + 3 standard deviations
of the scores of the images that the autoencoder was fit to. "held_out" is the same of calibration
images, which were kept out of the fit. "conformal" takes a quantile of the calibration scores: a
good image is rejected with a probability of at most `false_alarms`, whatever the distribution of
the scores.

This needs one assumption: the calibration images and the new good image are exchangeable, that is,
every order of them is equally likely. Split conformal prediction: Papadopoulos, Proedrou, Vovk,
Gammerman, "Inductive confidence machines for regression", ECML 2002; Vovk, Gammerman, Shafer,
"Algorithmic learning in a random world", Springer 2005; as p-values for outliers: Bates, Candès,
Lei, Romano, Sesia, "Testing for outliers with conformal p-values", Annals of Statistics 51, 2023.
"""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from texad.errors import check_choice, check_range

RULES = ("sigma", "held_out", "conformal")
STRONGEST_FIRST = ("conformal", "held_out", "sigma")


def predict(scores: np.ndarray, threshold: float) -> np.ndarray:
    """Predict which images are anomalous: score > threshold.

    Returns
    -------
    ndarray, bool, shape (N,)
    """
    return np.asarray(scores) > threshold


def sigma_threshold(scores: np.ndarray, n_sigma: float = 3.0) -> float:
    """Threshold μ + 3σ of the scores of defect-free images.

    With scores of the images that the autoencoder was fit to, this is the rule "sigma"; with scores
    of images that were kept out of the fit, it is "held_out".

    Parameters
    ----------
    scores : ndarray, shape (N,)
    n_sigma : float, default 3.0
        Standard deviations above the mean. σ is the population standard deviation (divided by N,
        not N − 1).

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If there is no score, or one of them or `n_sigma` is not finite.

    Examples
    --------
    >>> sigma_threshold([1.0, 3.0])  # mean 2, standard deviation 1
    5.0
    """
    if not math.isfinite(n_sigma):
        raise ValueError(f"n_sigma must be a finite number, for instance 3, not {n_sigma}")
    scores = _finite(scores, "scores")
    if scores.size == 0:
        raise ValueError("scores must hold at least one score")
    return float(scores.mean() + n_sigma * scores.std())


def conformal_threshold(
    calibration_scores: np.ndarray,
    false_alarms: float = 0.05,
    groups: Sequence[str] | None = None,
) -> float:
    """Threshold that a good image exceeds with a probability of at most `false_alarms`.

    It is the ⌈(n + 1)(1 − α)⌉-th smallest calibration score for a false-alarm rate of α. A score is
    above it exactly when its p-value is at most α. The bound holds for any distribution of the
    scores and any n, averaged over all choices of calibration images and new image. Given *these*
    calibration images the rate is a little smaller or larger (Angelopoulos and Bates, "Conformal
    prediction: a gentle introduction", Foundations and Trends in Machine Learning 16, 2023,
    section 3.2). With scores of models that share the work, see `texad.model.cross`.

    Parameters
    ----------
    calibration_scores : ndarray, shape (n,)
        Scores of defect-free images that the autoencoder was not fit to.
    false_alarms : float, default 0.05
        Largest acceptable false-alarm rate.
    groups : sequence of str, length n, optional
        Group of each image, see `p_values`.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If `false_alarms` does not lie between 0 and 1, there are too few images (or groups) for it,
        or a score is not finite.

    Examples
    --------
    >>> conformal_threshold([3.0, 1.0, 2.0, 4.0], false_alarms=0.4)  # 2 of 5 ranks lie above
    3.0
    """
    scores, n_at_least, n = _ranked(calibration_scores, groups)
    if n < (needed := images_needed(false_alarms)):
        of = "images" if groups is None else "groups of images"
        raise ValueError(
            f"false_alarms = {false_alarms} needs at least {needed} calibration {of}, and there "
            f"are {n}: add good images, or choose a larger false_alarms"
        )
    # p-value of a score just above each calibration score
    above = (1 + n_at_least[np.searchsorted(scores, scores, side="right")]) / (n + 1)
    return float(scores[np.flatnonzero(above <= false_alarms)[0]])


def n_rejected(n: int, false_alarms: float) -> int:
    """Count the calibration scores that `conformal_threshold` rejects: r = ⌊(n + 1)α⌋ of `n`.

    They are the r largest, and the threshold is the smallest of them. They are counted instead of
    computed, since (n + 1) · 0.29 falls short of 29 for n = 99.

    Examples
    --------
    >>> n_rejected(99, 0.29)
    29
    """
    return int(np.sum(np.arange(1, n + 1) / (n + 1) <= false_alarms))


def images_needed(false_alarms: float) -> int:
    """Return the fewest calibration images for which a p-value can be `false_alarms`: ⌈1/α⌉ − 1.

    Raises
    ------
    ValueError
        If `false_alarms` does not lie between 0 and 1.

    Examples
    --------
    >>> images_needed(0.05)
    19
    """
    check_range("false_alarms, the false-alarm rate,", false_alarms, above=0, below=1)
    # exact: 1 / false_alarms could be rounded, or too large for a float
    near = math.ceil(1 / Fraction(float(false_alarms)))
    # 1/m rounded, as p-values are, decides: as a float, 1/3 is less than a third
    return near - 1 - (1 / (near - 1) <= false_alarms)


def p_values(
    calibration_scores: np.ndarray, scores: np.ndarray, groups: Sequence[str] | None = None
) -> np.ndarray:
    """Conformal p-value of each score: p = (1 + number of calibration scores ≥ s) / (n + 1).

    If the image is good and exchangeable with the calibration images, then P(p ≤ α) ≤ α for every
    α: its rank among them is as likely to be any as any other. The 1 counts the image itself. Bates
    et al. 2023.

    Images of one group are not exchangeable with an image of a new one, but the groups are. So each
    counts as one: an image counts 1 / (number of images of its group), and n is the number of
    groups. The bound is then that for an image of a new group (Lee, Barber, Willett,
    "Distribution-free inference with hierarchical data", 2023, arXiv:2306.06342).

    Parameters
    ----------
    calibration_scores : ndarray, shape (n,)
        Scores of defect-free images that the autoencoder was not fit to.
    scores : ndarray, shape (M,)
        Scores of the images to judge.
    groups : sequence of str, length n, optional
        Group of each calibration image; by default each is one of its own.

    Returns
    -------
    ndarray, float64, shape (M,)
        From 1 / (n + 1) to 1. Without calibration images all are 1: there is no evidence against
        any image.

    Raises
    ------
    ValueError
        If a score is not finite.

    Examples
    --------
    >>> p_values([1.0, 2.0, 3.0], [0.5, 2.5, 9.0]).tolist()
    [1.0, 0.5, 0.25]
    >>> p_values([1.0, 2.0, 3.0], [2.5], groups=["a", "a", "b"]).round(3).tolist()  # 2 groups
    [0.667]
    """
    calibration, n_at_least, n = _ranked(calibration_scores, groups)
    ranks = np.searchsorted(calibration, _finite(scores, "scores"), side="left")
    return (1 + n_at_least[ranks]) / (n + 1)


def n_groups(n: int, groups: Sequence[str] | None) -> int:
    """Count the groups of `n` images, each of which is one of its own by default."""
    return n if groups is None else len({*groups})


def thresholds_by_rule(
    train_scores: np.ndarray,
    calibration_scores: np.ndarray,
    n_sigma: float = 3.0,
    false_alarms: float = 0.05,
    groups: Sequence[str] | None = None,
) -> dict[str, float | None]:
    """Threshold of each rule; None where there are too few calibration images for it.

    Parameters
    ----------
    train_scores, calibration_scores : ndarray, shape (N,) and (n,)
        Scores of defect-free images that the autoencoder was fit to, and was not fit to; the latter
        may be empty.
    n_sigma : float, default 3.0
    false_alarms : float, default 0.05
    groups : sequence of str, length n, optional
        Group of each calibration image, see `p_values`.

    Returns
    -------
    dict of str to float or None
        Keys as in `RULES`.

    Raises
    ------
    ValueError
        If `false_alarms` does not lie between 0 and 1, there is no training score, or a score is
        not finite.
    """
    n = n_groups(len(calibration_scores), groups)
    return {
        "sigma": sigma_threshold(train_scores, n_sigma),
        "held_out": (
            sigma_threshold(calibration_scores, n_sigma)
            if n >= fewest_images("held_out", false_alarms)
            else None
        ),
        "conformal": (
            conformal_threshold(calibration_scores, false_alarms, groups)
            if n >= fewest_images("conformal", false_alarms)
            else None
        ),
    }


def check_rule(rule: str, n_calibration: int, false_alarms: float = 0.05) -> None:
    """Check that a rule can set a threshold, before anything is computed for it.

    Parameters
    ----------
    rule : str
        One of `RULES`.
    n_calibration : int
        Number of calibration images, or of their groups.
    false_alarms : float, default 0.05

    Raises
    ------
    ValueError
        If there is no such rule, `false_alarms` does not lie between 0 and 1, or the rule needs
        more calibration images.
    """
    check_choice("rule", rule, RULES)
    if n_calibration < (fewest := fewest_images(rule, false_alarms)):
        wanted = f" for false_alarms = {false_alarms}" if rule == "conformal" else ""
        raise ValueError(
            f"rule {rule} needs at least {fewest} calibration images (or groups){wanted}, "
            f"and there are {n_calibration}: add good images, or choose rule sigma"
        )


def fewest_images(rule: str, false_alarms: float) -> int:
    """Return how many calibration images a rule needs; one alone has no standard deviation."""
    return {"sigma": 0, "held_out": 2, "conformal": images_needed(false_alarms)}[rule]


def _ranked(
    calibration_scores: np.ndarray, groups: Sequence[str] | None
) -> tuple[np.ndarray, np.ndarray, int]:
    """Sort the scores, and count from each on (and beyond the last) how many follow; and groups."""
    scores = _finite(calibration_scores, "calibration_scores")
    if groups is not None and len(groups) != len(scores):
        raise ValueError(
            f"groups must name one for each of {len(scores)} scores, not {len(groups)}"
        )
    _, numbers, sizes = np.unique(
        np.arange(len(scores)) if groups is None else np.asarray(groups, dtype=str),
        return_inverse=True,
        return_counts=True,
    )
    order = np.argsort(scores, kind="stable")
    counted = (1 / sizes[numbers])[order] if len(scores) else scores
    n_at_least = np.append(counted[::-1].cumsum()[::-1], 0)
    return scores[order], n_at_least, len(sizes)


def _finite(scores: np.ndarray, name: str) -> np.ndarray:
    scores = np.asarray(scores, dtype=np.float64)
    if not np.isfinite(scores).all():
        n_bad = np.sum(~np.isfinite(scores))
        raise ValueError(f"{name} must be finite, and {n_bad} of {scores.size} are not")
    return scores
