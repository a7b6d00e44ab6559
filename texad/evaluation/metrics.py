"""Metrics of the scores of images, and of the decisions.

AUROC, the area under the receiver operating characteristic curve, asks only whether anomalous
images score higher than normal ones: it is the probability that a random anomalous image scores
above a random normal one. Accuracy, precision, recall and F1 judge the decisions that one threshold
makes.

Functions of labels and scores raise a ValueError where their lengths differ or a score is not
finite. Where the test has only one kind of image, most numbers are None.
"""

import numpy as np
from scipy import stats
from sklearn import metrics

from texad.errors import check_range


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

    Examples
    --------
    >>> image_auroc([0, 0, 1, 1], [1.0, 3.0, 2.0, 4.0])  # 3 of 4 pairs are in the right order
    0.75
    """
    labels, scores = _checked(labels, scores)
    if labels.all() or not labels.any():
        return None
    return float(metrics.roc_auc_score(labels, scores))


def average_precision(labels: np.ndarray, scores: np.ndarray) -> float | None:
    """Average precision: the mean precision at each anomalous image, from the highest score down.

    Guessing gets the fraction of anomalous images.

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
    """Largest F1 of any threshold, found by looking at the labels: a bound for what is possible.

    Parameters
    ----------
    labels, scores : ndarray, shape (N,)

    Returns
    -------
    (f1, threshold) : (float, float) or None
        Images with a score greater than `threshold` are called anomalous, as by
        `threshold.predict`. Of equally good thresholds the highest. None where only one of the two
        kinds is present.

    Examples
    --------
    >>> f1_max([0, 0, 1, 1], [1.0, 2.0, 3.0, 4.0])
    (1.0, 2.0)
    """
    labels, scores = _checked(labels, scores)
    if labels.all() or not labels.any():
        return None
    scores = scores if np.issubdtype(scores.dtype, np.floating) else scores.astype(float)
    # its thresholds are the scores, and are for "at least"; its last point has none
    precision, recall, values = metrics.precision_recall_curve(labels, scores)
    f1 = (2 * precision * recall / np.maximum(precision + recall, 1e-12))[:-1]
    best = np.flatnonzero(np.isclose(f1, f1.max(), rtol=1e-12, atol=0))[-1]
    # for "greater than": the next lower score, or the nearest number below the lowest one
    below = values[best - 1] if best else np.nextafter(values[0], -np.inf, dtype=values.dtype)
    return float(f1[best]), float(below)


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
    labels, scores = np.asarray(labels, dtype=bool), np.asarray(scores)
    defects = np.asarray(defects)
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
        Any number that grows with the defect. NaN leaves an anomalous image out; those of normal
        images are ignored.
    n_groups : int, default 3
        Groups of about equal size, divided at the quantiles. Equal values stay together, in the
        milder group.

    Returns
    -------
    dict of str to float or None
        Keys "mild", "medium", "severe" for 3 groups, otherwise "1 of n" (the mildest) to "n of n".
        None for a group without image, and where there is no normal image.
    """
    labels, scores = _checked(labels, scores)
    severity = np.asarray(severity, dtype=float)
    if severity.shape != labels.shape:
        raise ValueError(
            f"severity {severity.shape} must have one number for each of the {len(labels)} images"
        )
    check_range("n_groups", n_groups, at_least=1)
    names = [f"{i} of {n_groups}" for i in range(1, n_groups + 1)]
    if n_groups == 3:
        names = ["mild", "medium", "severe"]
    known = labels & ~np.isnan(severity)
    if not known.any():
        return dict.fromkeys(names)
    edges = np.quantile(severity[known], np.arange(1, n_groups) / n_groups)
    groups = np.array(names)[np.searchsorted(edges, severity)]  # on an edge: the group below it
    kept = known | ~labels
    return dict.fromkeys(names) | auroc_by_defect(labels[kept], scores[kept], groups[kept])


def decision_metrics(labels: np.ndarray, predictions: np.ndarray) -> dict:
    """Accuracy, precision, recall, F1, the confusion matrix and the rates of wrong decisions.

    Parameters
    ----------
    labels, predictions : ndarray, shape (N,)
        True for anomalous.

    Returns
    -------
    dict
        `accuracy`, `precision`, `recall`, `f1` (float; 0.0 where a denominator is 0); `confusion`
        with the counts `tn`, `fp`, `fn`, `tp`; `false_alarm_rate`, the fraction of the normal
        images that are called anomalous, `miss_rate`, the fraction of the anomalous ones that are
        called normal, and their 95% Wilson intervals `false_alarm_interval` and `miss_interval`
        (None where there is no image of the kind).

    Examples
    --------
    >>> found = decision_metrics([0, 0, 0, 1, 1], [0, 0, 1, 1, 1])
    >>> found["confusion"], found["recall"], found["miss_rate"]
    ({'tn': 2, 'fp': 1, 'fn': 0, 'tp': 2}, 1.0, 0.0)
    """
    labels, predictions = np.asarray(labels, dtype=bool), np.asarray(predictions, dtype=bool)
    tn, fp, fn, tp = (
        metrics.confusion_matrix(labels, predictions, labels=[False, True]).ravel().tolist()
    )
    false_alarm_rate, false_alarm_interval = _rate(fp, tn + fp)
    miss_rate, miss_interval = _rate(fn, fn + tp)
    return {
        "accuracy": float(metrics.accuracy_score(labels, predictions)),
        "precision": float(metrics.precision_score(labels, predictions, zero_division=0)),
        "recall": float(metrics.recall_score(labels, predictions, zero_division=0)),
        "f1": float(metrics.f1_score(labels, predictions, zero_division=0)),
        "confusion": {"tn": tn, "fp": fp, "fn": fn, "tp": tp},
        "false_alarm_rate": false_alarm_rate,
        "false_alarm_interval": false_alarm_interval,
        "miss_rate": miss_rate,
        "miss_interval": miss_interval,
    }


def _rate(n: int, total: int) -> tuple[float | None, tuple[float, float] | None]:
    """A fraction and its 95% Wilson interval, which has a width even at 0 of 40."""
    if not total:
        return None, None
    low, high = stats.binomtest(n, total).proportion_ci(0.95, method="wilson")
    return n / total, (float(low), float(high))


def _checked(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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
