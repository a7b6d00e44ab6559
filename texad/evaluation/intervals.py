"""Confidence intervals of the AUROC: how far chance alone may have moved it.

Chance means the choice of the test images. Functions raise a ValueError where labels and scores
have different lengths, a score is not finite, or a confidence does not lie between 0 and 1.
"""

import numpy as np
from scipy import optimize, special, stats

from texad.errors import check_range


def auroc_interval(
    labels: np.ndarray, scores: np.ndarray, confidence: float = 0.95
) -> tuple[float, float] | None:
    """Confidence interval of the AUROC by DeLong's formula.

    Estimate ± z · standard error, cut off at 0 and 1. The error is DeLong's (DeLong, DeLong and
    Clarke-Pearson, "Comparing the areas under two or more correlated ROC curves", Biometrics 1988),
    computed from ranks (Sun and Xu, "Fast implementation of DeLong's algorithm", IEEE Signal
    Processing Letters 2014).

    Where it is 0, as at an AUROC of exactly 1, the interval would have no width, as if twenty
    images could prove perfection; and with one image of a kind it is not defined. There the
    interval is Newcombe's ("Confidence intervals for an effect size measure based on the
    Mann-Whitney statistic, part 2", Statistics in Medicine 2006, method 5): all areas θ with
    abs(estimate − θ) <= z · √V(θ), where V is Hanley and McNeil's variance.

    Parameters
    ----------
    labels, scores : ndarray, shape (N,)
    confidence : float, default 0.95
        How often, over many repetitions, the interval should contain the truth.

    Returns
    -------
    (float, float) or None
        Lower and upper end; None where only one of the two kinds is present.

    Examples
    --------
    >>> low, high = auroc_interval([0, 0, 0, 1, 1, 1], [1, 2, 4, 3, 5, 6])
    >>> print(f"{low:.3f} to {high:.3f}")
    0.581 to 1.000
    """
    (labels, scores), z = checked(labels, scores), _z(confidence)
    m, n = int(labels.sum()), int((~labels).sum())
    if not m or not n:
        return None
    ranks = stats.rankdata(scores)  # ties share their mean rank
    # normal images below each anomalous one, anomalous images above each normal one; a tie is 1/2
    below = ranks[labels] - stats.rankdata(scores[labels])
    above = m - (ranks[~labels] - stats.rankdata(scores[~labels]))
    estimate = below.mean() / n
    if m > 1 and n > 1 and (np.ptp(below) > 0 or np.ptp(above) > 0):
        margin = z * np.sqrt(below.var(ddof=1) / n**2 / m + above.var(ddof=1) / m**2 / n)
        return float(max(estimate - margin, 0.0)), float(min(estimate + margin, 1.0))
    return _newcombe_low(estimate, m, n, z), 1.0 - _newcombe_low(1.0 - estimate, m, n, z)


def checked(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return labels (bool) and scores as arrays of one length, all scores finite."""
    labels, scores = np.asarray(labels, dtype=bool), np.asarray(scores)
    if labels.ndim != 1 or labels.shape != scores.shape:
        raise ValueError(
            f"labels {labels.shape} and scores {scores.shape} must be two lists of the same length"
        )
    if not np.isfinite(scores).all():
        raise ValueError(
            f"scores must be finite; number {np.flatnonzero(~np.isfinite(scores))[0]} is not"
        )
    return labels, scores


def _newcombe_low(estimate: float, m: int, n: int, z: float) -> float:
    """The smallest area θ with estimate − θ <= z · √V(θ); the upper end follows by symmetry."""

    def gap(area: float) -> float:
        extra = (m + n) / 2 - 1
        factor = 1 + extra * (1 - area) / (2 - area) + extra * area / (1 + area)
        return estimate - area - z * np.sqrt(area * (1 - area) * factor / (m * n))

    nearly = estimate - 1e-12  # at an estimate of 1 itself, V and the gap are 0
    return float(optimize.brentq(gap, 0.0, nearly)) if nearly > 0 else 0.0


def _z(confidence: float) -> float:
    """Half the width, in standard deviations, of the central interval of a normal distribution."""
    check_range("confidence", confidence, above=0, below=1, hint="for instance 0.95")
    return float(special.ndtri((1 + confidence) / 2))
