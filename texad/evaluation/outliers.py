"""Scores that stand apart: a sign that an image among the good ones is not good.

Each image has to be judged by a model that has not seen it: one that has may have learnt the
defect, too.
"""

import numpy as np

APART = 5  # robust standard deviations above the median
FEWEST = 8  # scores among which one can stand apart


def apart(scores: np.ndarray) -> np.ndarray:
    """Find the scores that are far above the others.

    Far above is more than 5 robust standard deviations above the median m. Scores are skewed, so
    only those above m say how far the others spread: the deviation is the median of s − m of all
    s > m, times 1.4826, which makes it the standard deviation where the scores are normal. Medians
    are used since outliers would pull a mean and a standard deviation to themselves, and then hide
    behind them (Leys et al., "Detecting outliers: do not use standard deviation around the mean,
    use absolute deviation around the median", Journal of Experimental Social Psychology 49, 2013).

    Parameters
    ----------
    scores : ndarray, shape (n,)

    Returns
    -------
    ndarray of int
        Their indices, that of the highest score first; empty if there are fewer than 8 scores.

    Examples
    --------
    >>> apart(np.array([1, 2, 3, 4, 5, 6, 7, 90, 8, 9, 50])).tolist()
    [7, 10]
    """
    if len(scores) < FEWEST:
        return np.empty(0, dtype=int)
    above = scores - np.median(scores)
    deviation = 1.4826 * np.median(above[above > 0]) if (above > 0).any() else np.inf
    order = np.argsort(-scores, kind="stable")
    return order[above[order] > APART * deviation]
