"""How good are the scores, and how good are the decisions?

AUROC, the area under the receiver operating characteristic curve, asks only whether anomalous images score higher than
normal ones: it is the chance that a random anomalous image scores above a random normal one. Accuracy, precision,
recall and F1 judge the decisions that one threshold makes. An interval says how far chance alone, in the choice of the
test images, may have moved a number.

Functions of labels and scores raise a ValueError where their lengths differ, a score is not finite, or a confidence does
not lie between 0 and 1. Where the test has only one kind of image, most numbers are None.
"""

from collections.abc import Iterable, Iterator
from itertools import zip_longest

import numpy as np
import torch
from scipy import ndimage, optimize, special, stats
from sklearn import metrics
from torch.nn import functional


def _checked(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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


def _z(confidence: float) -> float:
    """So many standard deviations around its mean hold the share `confidence` of a normal distribution."""
    if not 0 < confidence < 1:
        raise ValueError(
            f"confidence must lie between 0 and 1, for instance 0.95, not {confidence}"
        )
    return float(special.ndtri((1 + confidence) / 2))


def image_auroc(labels: np.ndarray, scores: np.ndarray) -> float | None:
    """AUROC of images.

    Parameters
    ----------
    labels : ndarray, shape (N,)
        0 or False for normal, 1 or True for anomalous.
    scores : ndarray, shape (N,)

    Returns
    -------
    float or None
        None where only one of the two kinds is present: the question has no answer then.
    """
    labels, scores = _checked(labels, scores)
    if labels.all() or not labels.any():
        return None
    return float(metrics.roc_auc_score(labels, scores))


def auroc_interval(
    labels: np.ndarray, scores: np.ndarray, confidence: float = 0.95
) -> tuple[float, float] | None:
    """Confidence interval of the AUROC: how far might it lie from that of endlessly many such images?

    Estimate ± z · standard error, cut off at 0 and 1. The error is DeLong's (DeLong, DeLong and Clarke-Pearson, "Comparing the
    areas under two or more correlated ROC curves", Biometrics 1988), computed from ranks (Sun and Xu, "Fast implementation
    of DeLong's algorithm", IEEE Signal Processing Letters 2014).

    Where it is 0, as at an AUROC of exactly 1, the interval would have no width, as if twenty images could prove perfection; and
    with one image of a kind it is not defined. There the interval is Newcombe's ("Confidence intervals for an effect size
    measure based on the Mann-Whitney statistic, part 2", Statistics in Medicine 2006, method 5): all areas θ with
    abs(estimate − θ) <= z · √V(θ), where V is Hanley and McNeil's variance.

    Parameters
    ----------
    labels, scores : ndarray, shape (N,)
    confidence : float, default 0.95
        How often, over many repetitions, the interval should hold the truth.

    Returns
    -------
    (float, float) or None
        Lower and upper end; None where only one of the two kinds is present.
    """
    (labels, scores), z = _checked(labels, scores), _z(confidence)
    m, n = int(labels.sum()), int((~labels).sum())
    if not m or not n:
        return None
    ranks = stats.rankdata(scores)  # ties share their mean rank
    below = ranks[labels] - stats.rankdata(
        scores[labels]
    )  # normal images below each anomalous one, a tie counts 1/2
    above = m - (
        ranks[~labels] - stats.rankdata(scores[~labels])
    )  # anomalous images above each normal one
    estimate = below.mean() / n
    if m > 1 and n > 1 and (np.ptp(below) > 0 or np.ptp(above) > 0):
        margin = z * np.sqrt(below.var(ddof=1) / n**2 / m + above.var(ddof=1) / m**2 / n)
        return float(max(estimate - margin, 0.0)), float(min(estimate + margin, 1.0))
    return _newcombe_low(estimate, m, n, z), 1.0 - _newcombe_low(1.0 - estimate, m, n, z)


def _newcombe_low(estimate: float, m: int, n: int, z: float) -> float:
    """The smallest area θ with estimate − θ <= z · √V(θ); the upper end follows by symmetry."""

    def gap(area: float) -> float:
        extra = (m + n) / 2 - 1
        factor = 1 + extra * (1 - area) / (2 - area) + extra * area / (1 + area)
        return estimate - area - z * np.sqrt(area * (1 - area) * factor / (m * n))

    nearly = estimate - 1e-12  # at an estimate of 1 itself, V and the gap are 0
    return float(optimize.brentq(gap, 0.0, nearly)) if nearly > 0 else 0.0


def bootstrap_auroc_interval(
    labels: np.ndarray,
    scores: np.ndarray,
    confidence: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Confidence interval of the AUROC by resampling: a check of `auroc_interval` that needs no formula.

    The percentile bootstrap (Efron and Tibshirani, "An introduction to the bootstrap", 1993), stratified: as many images of
    each kind as there are, drawn with replacement. At an AUROC of exactly 1 it has no width: trust `auroc_interval` there.

    Parameters
    ----------
    labels, scores : ndarray, shape (N,)
    confidence : float, default 0.95
    n_resamples : int, default 2000
        At least 1, else a ValueError.
    seed : int, default 0

    Returns
    -------
    (float, float) or None
        None where only one of the two kinds is present.
    """
    labels, scores = _checked(labels, scores)
    _z(confidence)
    if n_resamples < 1:
        raise ValueError(f"n_resamples must be at least 1, not {n_resamples}")
    if labels.all() or not labels.any():
        return None
    values, levels = np.unique(scores, return_inverse=True)
    rng = np.random.default_rng(seed)

    def counts(
        own: np.ndarray, rows: int
    ) -> np.ndarray:  # of each level in each resample, (rows, levels)
        drawn = (
            own[rng.integers(len(own), size=(rows, len(own)))]
            + len(values) * np.arange(rows)[:, None]
        )
        return np.bincount(drawn.ravel(), minlength=rows * len(values)).reshape(rows, -1)

    aurocs, rows = (
        [],
        max(1, 2**20 // len(scores)),
    )  # so many resamples at a time, to bound the memory
    for start in range(0, n_resamples, rows):
        size = min(rows, n_resamples - start)
        anomalous, normal = counts(levels[labels], size), counts(levels[~labels], size)
        pairs = anomalous * (
            normal.cumsum(axis=1) - normal / 2
        )  # in the right order; a tie counts 1/2
        aurocs.append(pairs.sum(axis=1) / (labels.sum() * (~labels).sum()))
    low, high = np.quantile(np.concatenate(aurocs), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def average_precision(labels: np.ndarray, scores: np.ndarray) -> float | None:
    """The precision at each anomalous image, from the highest score downwards, averaged; guessing gets the share of anomalous ones.

    Parameters
    ----------
    labels, scores : ndarray, shape (N,)

    Returns
    -------
    float or None
        None where only one of the two kinds is present.
    """
    labels, scores = _checked(labels, scores)
    if labels.all() or not labels.any():
        return None
    return float(metrics.average_precision_score(labels, scores))


def f1_max(labels: np.ndarray, scores: np.ndarray) -> tuple[float, float] | None:
    """The largest F1 of any threshold, found by looking at the labels: a bound, not what a factory will see.

    Parameters
    ----------
    labels, scores : ndarray, shape (N,)

    Returns
    -------
    (f1, threshold) : (float, float) or None
        Images with a score greater than `threshold` are called anomalous, as by `scoring.predict`. Of equally good thresholds
        the highest. None where only one of the two kinds is present.
    """
    labels, scores = _checked(labels, scores)
    if labels.all() or not labels.any():
        return None
    scores = scores if np.issubdtype(scores.dtype, np.floating) else scores.astype(float)
    values = np.unique(scores)[::-1]  # from high to low
    hits = np.searchsorted(
        np.sort(-scores[labels]), -values, side="right"
    )  # anomalous images with at least this score
    alarms = np.searchsorted(np.sort(-scores), -values, side="right")
    f1 = 2 * hits / (alarms + labels.sum())
    best = int(np.argmax(f1))
    # The next lower score, since "greater than" leaves it out. Below the lowest one, the nearest number of the same precision.
    thresholds = np.append(values[1:], np.nextafter(values[-1], -np.inf, dtype=values.dtype))
    return float(f1[best]), float(thresholds[best])


def auroc_by_defect(
    labels: np.ndarray, scores: np.ndarray, defects: np.ndarray
) -> dict[str, float | None]:
    """AUROC of each defect type alone against all normal images.

    Parameters
    ----------
    labels, scores : ndarray, shape (N,)
    defects : ndarray of str, shape (N,)
        Name of each image's defect type; normal images have any name.

    Returns
    -------
    dict of str to float or None
    """
    labels, scores, defects = (
        np.asarray(labels, dtype=bool),
        np.asarray(scores),
        np.asarray(defects),
    )
    result = {}
    for defect in sorted(set(defects[labels])):
        chosen = ~labels | (defects == defect)
        result[str(defect)] = image_auroc(labels[chosen], scores[chosen])
    return result


def auroc_by_severity(
    labels: np.ndarray, scores: np.ndarray, severity: np.ndarray, n_groups: int = 3
) -> dict[str, float | None]:
    """AUROC of the mild, the medium and the severe defects, each group against all normal images.

    Parameters
    ----------
    labels, scores : ndarray, shape (N,)
    severity : ndarray of float, shape (N,)
        Any number that grows with the defect. NaN leaves an anomalous image out; of normal images it is not looked at.
    n_groups : int, default 3
        Groups of about equal size, divided at the quantiles. Equal values stay together, in the milder group.

    Returns
    -------
    dict of str to float or None
        Keys "mild", "medium", "severe" for 3 groups, otherwise "1 of n" (the mildest) to "n of n". None for a group without
        image, and where there is no normal image.
    """
    labels, scores = _checked(labels, scores)
    severity = np.asarray(severity, dtype=float)
    if severity.shape != labels.shape:
        raise ValueError(
            f"severity {severity.shape} must have one number for each of the {len(labels)} images"
        )
    if n_groups < 1:
        raise ValueError(f"n_groups must be at least 1, not {n_groups}")
    names = (
        ["mild", "medium", "severe"]
        if n_groups == 3
        else [f"{i} of {n_groups}" for i in range(1, n_groups + 1)]
    )
    known = labels & ~np.isnan(severity)
    if not known.any():
        return dict.fromkeys(names)
    edges = np.quantile(severity[known], np.arange(1, n_groups) / n_groups)
    groups = np.array(names)[
        np.searchsorted(edges, severity)
    ]  # a value on an edge belongs to the group below it
    kept = known | ~labels
    return dict.fromkeys(names) | auroc_by_defect(labels[kept], scores[kept], groups[kept])


def wilson_interval(
    successes: int, total: int, confidence: float = 0.95
) -> tuple[float, float] | None:
    """Confidence interval of a share, such as 3 false alarms among 40 good images.

    Wilson, "Probable inference, the law of succession, and statistical inference", Journal of the American Statistical
    Association 1927: all shares p with abs(observed − p) <= z · √(p (1 − p) / total). It has a width even at 0 of 40.

    Parameters
    ----------
    successes, total : int
        0 <= successes <= total, else a ValueError.
    confidence : float, default 0.95

    Returns
    -------
    (float, float) or None
        None for a total of 0.
    """
    z = _z(confidence)
    if not 0 <= successes <= total:
        raise ValueError(f"successes must lie between 0 and the total of {total}, not {successes}")
    if total == 0:
        return None
    share, weight = successes / total, z**2 / total
    middle = (share + weight / 2) / (1 + weight)
    margin = np.sqrt(weight * (share * (1 - share) + weight / 4)) / (1 + weight)
    # At the ends the formula gives exactly 0 or 1, and rounding does not
    return (0.0 if successes == 0 else float(middle - margin)), (
        1.0 if successes == total else float(middle + margin)
    )


def decision_metrics(labels: np.ndarray, predictions: np.ndarray) -> dict:
    """Accuracy, precision, recall, F1, the confusion matrix and the rates of wrong decisions.

    Parameters
    ----------
    labels, predictions : ndarray, shape (N,)
        True for anomalous.

    Returns
    -------
    dict
        `accuracy`, `precision`, `recall`, `f1` (float; 0.0 where a denominator is 0); `confusion` with the counts `tn`, `fp`,
        `fn`, `tp`; `false_alarm_rate`, the share of the normal images that are called anomalous, `miss_rate`, the share of the
        anomalous ones that are called normal, and their 95% Wilson intervals `false_alarm_interval` and `miss_interval`
        (None where there is no image of the kind).
    """
    labels, predictions = np.asarray(labels, dtype=bool), np.asarray(predictions, dtype=bool)
    tn, fp, fn, tp = (
        metrics.confusion_matrix(labels, predictions, labels=[False, True]).ravel().tolist()
    )
    return {
        "accuracy": float(metrics.accuracy_score(labels, predictions)),
        "precision": float(metrics.precision_score(labels, predictions, zero_division=0)),
        "recall": float(metrics.recall_score(labels, predictions, zero_division=0)),
        "f1": float(metrics.f1_score(labels, predictions, zero_division=0)),
        "confusion": {"tn": tn, "fp": fp, "fn": fn, "tp": tp},
        "false_alarm_rate": fp / (tn + fp) if tn + fp else None,
        "false_alarm_interval": wilson_interval(fp, tn + fp),
        "miss_rate": fn / (fn + tp) if fn + tp else None,
        "miss_interval": wilson_interval(fn, fn + tp),
    }


def upsample(maps: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """Stretch anomaly maps to the size of the image, bilinearly.

    Parameters
    ----------
    maps : ndarray, float32, shape (N, H, W)
    size : int or (int, int)
        Height and width in pixels.

    Returns
    -------
    ndarray, float32, shape (N, height, width)
    """
    size = (size, size) if isinstance(size, int) else size
    return functional.interpolate(torch.from_numpy(np.array(maps))[:, None], size, mode="bilinear")[
        :, 0
    ].numpy()


def upsample_each(
    maps: np.ndarray, size: int | tuple[int, int], batch_size: int = 32
) -> Iterator[np.ndarray]:
    """Yield each of the `maps` (which may be memory-mapped) as `upsample` gives it, with one batch in memory at a time."""
    for start in range(0, len(maps), batch_size):
        yield from upsample(maps[start : start + batch_size], size)


N_BINS = (
    2**22
)  # bins of the histograms of `pixel_metrics`: 13 of the 23 binary digits of a float32's fraction


def _bins(values: np.ndarray) -> np.ndarray:
    """The bin of each float32: its bits, read as a number that grows with the value, without the lowest ten."""
    bits = (values + np.float32(0)).view(
        np.uint32
    )  # + 0, since -0.0 and 0.0 are equal and their bits are not
    ordered = np.where(
        bits >> 31, ~bits, bits | np.uint32(2**31)
    )  # without the sign, negative values run backwards
    return (ordered // (2**32 // N_BINS)).astype(np.intp)


def pixel_metrics(
    masks: Iterable[np.ndarray], maps: Iterable[np.ndarray], max_fpr: float = 0.3
) -> dict[str, float | None]:
    """Do the maps point at the defects? Pixel AUROC and AUPRO, from one image at a time.

    Both are areas under a curve over the false-positive rate, the share of all normal pixels above a threshold. For the AUROC
    the curve is the share of the defective pixels above it; for AUPRO (Bergmann et al., "The MVTec anomaly detection dataset",
    International Journal of Computer Vision 2021) the *per-region overlap*: that share in each connected region of a mask
    (8 neighbours), averaged over all regions. Its area up to `max_fpr` is divided by `max_fpr`, so that 1 is perfect.

    The scores are counted in histograms of fixed size, so memory does not grow with the number of images; for AUPRO a pixel
    counts 1 / (size of its region). A bin is as wide as 1/8192 of the largest power of two in its scores. Values in one bin are
    taken as tied: the curves are straight there. So the AUROC is wrong by at most half the share of (normal, defective)
    pairs that share a bin, usually far less; whole numbers up to 16384 are counted exactly.

    Parameters
    ----------
    masks : iterable of ndarray, bool, shape (H, W)
        True where the surface is defective; all False for a normal image. An array (N, H, W) or a generator.
    maps : iterable of ndarray, float32, shape (H, W)
        Anomaly maps, each as large as its mask; see `upsample_each`. Images may differ in size.
    max_fpr : float, default 0.3

    Returns
    -------
    dict
        `pixel_auroc` and `aupro`, float; None if no pixel, or every pixel, is defective.

    Raises
    ------
    ValueError
        If a map is not finite or not of its mask's shape, if one of them is missing, or if not 0 < max_fpr <= 1.
    """
    if not 0 < max_fpr <= 1:
        raise ValueError(f"max_fpr must be above 0 and at most 1, not {max_fpr}")
    counts: list[np.ndarray] = [np.zeros(N_BINS, kind) for kind in (np.int64, np.int64, np.float64)]
    normal, defective, overlap = counts
    for i, (mask, values) in enumerate(zip_longest(masks, maps)):
        if mask is None or values is None:
            raise ValueError(
                f"masks and maps must be equally many; one of them ended after {i} images"
            )
        mask, values = np.asarray(mask, dtype=bool), np.asarray(values, dtype=np.float32)
        if mask.ndim != 2 or mask.shape != values.shape:
            raise ValueError(
                f"mask {mask.shape} and map {values.shape} of image {i} must both be (H, W); see upsample"
            )
        if not np.isfinite(values).all():
            raise ValueError(f"the map of image {i} is not finite everywhere")
        bins = _bins(values)
        np.add.at(normal, bins[~mask], 1)
        if mask.any():
            region = ndimage.label(mask, structure=np.ones((3, 3)))[0][
                mask
            ]  # the number of each defective pixel's region
            np.add.at(defective, bins[mask], 1)
            np.add.at(overlap, bins[mask], 1 / np.bincount(region)[region])
    used = np.flatnonzero(normal + defective)[::-1]  # from the highest score downwards
    normal, defective, overlap = (np.append(0, each[used].cumsum()) for each in counts)
    if not normal[-1] or not defective[-1]:
        return {"pixel_auroc": None, "aupro": None}
    fpr, tpr, pro = (
        normal / normal[-1],
        defective / defective[-1],
        overlap / overlap[-1],
    )  # its sum: the number of regions
    stop = np.searchsorted(fpr, max_fpr, side="right")
    below, limit = (fpr[:stop], pro[:stop]), (max_fpr, np.interp(max_fpr, fpr, pro))
    area = metrics.auc(*(np.append(values, end) for values, end in zip(below, limit, strict=True)))
    return {"pixel_auroc": float(metrics.auc(fpr, tpr)), "aupro": float(area / max_fpr)}
