"""Drift: tests of new good images against those that the threshold was set with.

A detector knows the surface, the light and the camera as they were. If one of them changes, so do
the scores of good images, and what was promised of the threshold no longer holds. Scores of new
good images show it, without a single defect. Two tests look at them, each at half of the level, so
that a line which has not changed is suspected with a probability of at most the level:

- Do the new scores come from the same distribution? The two-sample test of Kolmogorov and Smirnov
  (Hodges, "The significance probability of the Smirnov two-sample test", Arkiv för Matematik 3,
  1958). It sees changes anywhere, best those of the middle.
- Are more of them above the threshold than was promised? With n calibration scores, of which the r
  largest are those that the threshold rejects, the number of m new good images above it is
  beta-binomial with parameters m, r and n + 1 − r: the rate itself is known only as well as n
  images show it (Vovk, "Conditional validity of inductive conformal predictors", ACML 2012).

Both take the images for independent. Frames of one piece that follow each other are not: they are
fewer images than they seem.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from texad.errors import check_range
from texad.model.threshold import n_rejected, predict

LEVEL = 0.01  # a check a day then cries wolf about once in three months, at most
# the typical new image is stranger than such a fraction of the old ones: another threshold would
# hide the change, not repair it
FAR = 0.95


@dataclass(frozen=True)
class Drift:
    """Comparison of two sets of scores of good images.

    Attributes
    ----------
    n_calibration, n_new : int
    statistic : float
        The largest distance between the two cumulative distributions, from 0 to 1.
    p_value : float
        How often a line that has not changed would show so large a distance.
    n_above : int
        New images above the threshold.
    interval : (float, float)
        95% confidence interval (Wilson's) of the fraction of good images above the threshold, from
        the new images alone.
    promised : float or None
        The false-alarm rate that the threshold promises; None if it promises none.
    p_above : float
        How often so many would be above it if the promise held; 1 if there is none.
    level : float
        Level of both tests together.
    verdict : str
        "none seen", "too few", "lower", "higher", "far higher", "spread".
    """

    n_calibration: int
    n_new: int
    statistic: float
    p_value: float
    n_above: int
    interval: tuple[float, float]
    promised: float | None
    p_above: float
    level: float
    verdict: str

    @property
    def rate(self) -> float:
        """Fraction of the new images above the threshold."""
        return self.n_above / self.n_new

    @property
    def has_drifted(self) -> bool:
        return self.verdict not in ("none seen", "too few")


def compare(
    calibration_scores: np.ndarray,
    new_scores: np.ndarray,
    threshold: float,
    promised: float | None,
    level: float = LEVEL,
    n_groups: int | None = None,
) -> Drift:
    """Compare the scores of new good images with those of the calibration images.

    Parameters
    ----------
    calibration_scores : ndarray, shape (n,)
        Scores of good images that the detector was not fit to.
    new_scores : ndarray, shape (m,)
        Scores of other good images.
    threshold : float
    promised : float or None
        The false-alarm rate that the threshold promises ("conformal"); None if it promises none.
    level : float, default 0.01
        The probability with which a line that has not changed may be suspected.
    n_groups : int, optional
        Number of groups that the calibration images are in; by default each is one of its own.

    Raises
    ------
    ValueError
        If there are no scores on a side, one is not finite, or `level` does not lie between 0 and
        1.
    """
    check_range(
        "level", level, above=0, below=1, hint="0.01 is one wrong alarm in a hundred checks"
    )
    old = np.asarray(calibration_scores, dtype=np.float64)
    new = np.asarray(new_scores, dtype=np.float64)
    for name, scores in (("calibration_scores", old), ("new_scores", new)):
        if not scores.size or not np.isfinite(scores).all():
            raise ValueError(f"{name} must hold at least one score, and finite ones")
    n, m = len(old), len(new)
    test = stats.ks_2samp(old, new)
    n_above = int(predict(new, threshold).sum())
    interval = stats.binomtest(n_above, m).proportion_ci(0.95, method="wilson")
    p_above = 1.0
    if promised is not None:
        known = n if n_groups is None else n_groups
        r = n_rejected(known, promised)
        p_above = float(stats.betabinom.sf(n_above - 1, m, r, known + 1 - r))
    # fraction of the old scores below the median of the new: 0.5 if nothing has changed
    rank = float((np.mean(old < np.median(new)) + np.mean(old <= np.median(new))) / 2)
    differs, rises = test.pvalue <= level / 2, p_above <= level / 2
    if not (differs or rises):
        verdict = "too few" if m < new_images_needed(n, level) else "none seen"
    elif rank >= FAR:
        verdict = "far higher"
    elif rises or rank > 0.6:
        verdict = "higher"
    else:
        verdict = "lower" if rank < 0.4 else "spread"
    return Drift(
        n_calibration=n,
        n_new=m,
        statistic=float(test.statistic),
        p_value=float(test.pvalue),
        n_above=n_above,
        interval=(float(interval.low), float(interval.high)),
        promised=promised,
        p_above=p_above,
        level=level,
        verdict=verdict,
    )


def rate_interval(n: int, false_alarms: float) -> tuple[float, float]:
    """Compute a 90% interval of the false-alarm rate of one conformal threshold.

    The promise is kept on the average over all choices of calibration images. Given these, the rate
    is beta-distributed, with parameters r and n + 1 − r for r = ⌊(n + 1)α⌋ (Vovk 2012).
    """
    r = n_rejected(n, false_alarms)
    low, high = stats.beta.ppf([0.05, 0.95], r, n + 1 - r)
    return float(low), float(high)


def new_images_needed(n: int, level: float = LEVEL) -> int:
    """Count the new images needed to see any change, compared with `n` calibration images.

    If all new scores are above all old ones, p is 2 divided by the number of ways to choose the new
    ones among all. With one calibration image, for instance, it takes hundreds.
    """
    return next(m for m in itertools.count(1) if math.comb(n + m, m) >= 4 / level)


def smallest_shift(n: int, m: int, level: float = LEVEL) -> float:
    """Compute the shift, in standard deviations, that is seen about four times in five.

    It is a shift of all scores, infinite if none could be seen, for normally distributed scores. A
    shift by δ standard deviations makes the distributions 2Φ(δ/2) − 1 apart, where Φ is the normal
    distribution; the test asks for a distance of about c·√((n + m)/(n·m)), where c is the quantile
    of Kolmogorov's distribution. The largest distance of two samples tends to be larger than that
    of their distributions, hence four times in five, and not one in two (simulated).
    """
    distance = stats.kstwobign.isf(level / 2) * math.sqrt((n + m) / (n * m))
    if distance >= 1 or m < new_images_needed(n, level):
        return math.inf
    return float(2 * stats.norm.ppf((1 + distance) / 2))
