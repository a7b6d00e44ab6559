"""Confidence interval of the AUROC: how far chance alone may have moved it.

Chance means the choice of the test images.
"""

import numpy as np
from scipy import special

from texad.errors import check_range
from texad.evaluation.metrics import image_auroc


def auroc_interval(
    labels: np.ndarray, scores: np.ndarray, confidence: float = 0.95
) -> tuple[float, float] | None:
    """Confidence interval of the AUROC: Wilson's interval, with 3/2 trials per image.

    The AUROC θ is the share of pairs in the right order, but pairs share images, so they are not
    independent trials. By Hanley and McNeil ("The meaning and use of the area under a receiver
    operating characteristic (ROC) curve", Radiology 1982), its variance for exponential scores and
    many images is at most 2/3 · θ(1 − θ) / n, where n is the number of images of the rarer kind:
    that of 3n/2 independent trials. For so many, the interval is Wilson's ("Probable inference, the
    law of succession, and statistical inference", Journal of the American Statistical Association
    1927): all θ with abs(estimate − θ) <= z · √(θ(1 − θ) / (3n/2)).

    It has a width even at an AUROC of exactly 1, and with the same numbers of images a higher AUROC
    never has a lower end.

    Parameters
    ----------
    labels, scores : ndarray, shape (N,)
    confidence : float, default 0.95
        How often, over many repetitions, the interval should contain the truth.

    Returns
    -------
    (float, float) or None
        Lower and upper end; None where only one of the two kinds is present.

    Raises
    ------
    ValueError
        If labels and scores have different lengths, a score is not finite, or the confidence does
        not lie between 0 and 1.

    Notes
    -----
    Coverage of the 95% interval, simulated with 10 to 200 images of a kind, equally many or not,
    and with true AUROCs from 0.7 to 0.999:

    ==================================================  ==============  ==============
    Scores                                              Lowest          Mean
    ==================================================  ==============  ==============
    normal, of equal spread                             0.95            0.99
    the same, rounded, so that most are tied            0.96            0.99
    exponential                                         0.94            0.98
    normal, anomalous images spread three times as far  0.93            0.97
    some images look exactly like the other kind        0.91            0.97
    ==================================================  ==============  ==============

    So it is conservative as a rule, most of all with few images of one kind and many of the other,
    and a little liberal at AUROCs from 0.99 where a rare image of one kind looks like the other.
    In the same simulation the coverage of DeLong's interval (Biometrics 1988) fell to 0.68, and
    that of Newcombe's fifth method (Statistics in Medicine 2006) to 0.84.

    Examples
    --------
    >>> low, high = auroc_interval([0, 0, 0, 1, 1, 1], [1, 2, 4, 3, 5, 6])
    >>> print(f"{low:.3f} to {high:.3f}")
    0.431 to 0.988
    """
    check_range("confidence", confidence, above=0, below=1, hint="for instance 0.95")
    auroc = image_auroc(labels, scores)
    if auroc is None:
        return None
    trials = 1.5 * np.unique(np.asarray(labels, dtype=bool), return_counts=True)[1].min()
    pull = special.chdtri(1, 1 - confidence) / trials / 2  # z² / 2n

    def low(share: float) -> float:
        root = np.sqrt(pull**2 + 2 * pull * share * (1 - share))
        return float((share + pull - root) / (1 + 2 * pull))

    return low(auroc), 1 - low(1 - auroc)
