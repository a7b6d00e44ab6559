"""How good are the scores, and how good are the decisions?

AUROC, the area under the receiver operating characteristic curve, asks only whether anomalous images score higher than
normal ones: it is the chance that a random anomalous image scores above a random normal one. Accuracy, precision,
recall and F1 judge the decisions that one threshold makes.
"""

import numpy as np
import torch
from sklearn import metrics
from torch.nn import functional


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
    labels = np.asarray(labels, dtype=bool)
    if labels.all() or not labels.any():
        return None
    return float(metrics.roc_auc_score(labels, scores))


def auroc_by_defect(labels: np.ndarray, scores: np.ndarray, defects: np.ndarray) -> dict[str, float | None]:
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
    labels, scores, defects = np.asarray(labels, dtype=bool), np.asarray(scores), np.asarray(defects)
    result = {}
    for defect in sorted(set(defects[labels])):
        chosen = ~labels | (defects == defect)
        result[str(defect)] = image_auroc(labels[chosen], scores[chosen])
    return result


def decision_metrics(labels: np.ndarray, predictions: np.ndarray) -> dict:
    """Accuracy, precision, recall, F1 and the confusion matrix of the decisions.

    Parameters
    ----------
    labels, predictions : ndarray, shape (N,)
        True for anomalous.

    Returns
    -------
    dict
        `accuracy`, `precision`, `recall`, `f1` (float; 0.0 where a denominator is 0) and `confusion` with the counts `tn`,
        `fp`, `fn`, `tp`.
    """
    labels, predictions = np.asarray(labels, dtype=bool), np.asarray(predictions, dtype=bool)
    tn, fp, fn, tp = metrics.confusion_matrix(labels, predictions, labels=[False, True]).ravel().tolist()
    return {
        "accuracy": float(metrics.accuracy_score(labels, predictions)),
        "precision": float(metrics.precision_score(labels, predictions, zero_division=0)),
        "recall": float(metrics.recall_score(labels, predictions, zero_division=0)),
        "f1": float(metrics.f1_score(labels, predictions, zero_division=0)),
        "confusion": {"tn": tn, "fp": fp, "fn": fn, "tp": tp},
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
    return functional.interpolate(torch.from_numpy(np.array(maps))[:, None], size, mode="bilinear")[:, 0].numpy()


def pixel_auroc(masks: np.ndarray, maps: np.ndarray) -> float | None:
    """AUROC of pixels: does the map point at the defect?

    Parameters
    ----------
    masks : ndarray, bool, shape (N, H, W)
        True where the surface is defective; all False for a normal image.
    maps : ndarray, float32, shape (N, H, W)
        Anomaly maps, as large as the masks.

    Returns
    -------
    float or None
        None if no pixel, or every pixel, is defective.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    if masks.shape != maps.shape:
        raise ValueError(f"masks {masks.shape} and maps {maps.shape} must have the same shape; see upsample")
    return image_auroc(masks.ravel(), maps.ravel())
