"""Metrics of anomaly maps: pixel AUROC, AUPRO, and whether their peaks lie in the defects."""

from collections.abc import Iterable
from itertools import zip_longest

import numpy as np
from scipy import ndimage
from sklearn import metrics

from texad.errors import check_range

# bins of the histograms: 13 of the 23 binary digits of a float32's fraction
N_BINS = 2**22


def pixel_metrics(
    masks: Iterable[np.ndarray], maps: Iterable[np.ndarray], max_fpr: float = 0.3
) -> dict[str, float | None]:
    """Pixel AUROC, AUPRO, and the fraction of peaks in the mask, from one image at a time.

    The first two are areas under a curve over the false-positive rate, the fraction of all normal
    pixels above a threshold. For the AUROC the curve is the fraction of the defective pixels above
    it; for AUPRO (Bergmann et al., "The MVTec anomaly detection dataset", International Journal of
    Computer Vision 2021) the *per-region overlap*: that fraction in each connected region of a mask
    (8 neighbours), averaged over all regions. Its area up to `max_fpr` is divided by `max_fpr`, so
    that 1 is perfect.

    The scores are counted in histograms of fixed size, so memory does not grow with the number of
    images; for AUPRO a pixel counts 1 / (size of its region). A bin is as wide as 1/8192 of the
    largest power of two in its scores. Values in one bin are taken as tied: the curves are straight
    there. So the AUROC is wrong by at most half the fraction of (normal, defective) pairs that
    share a bin, usually far less; whole numbers up to 16384 are counted exactly.

    Parameters
    ----------
    masks : iterable of ndarray, bool, shape (H, W)
        True where the surface is defective; all False for a normal image. An array (N, H, W) or a
        generator.
    maps : iterable of ndarray, float32, shape (H, W)
        Anomaly maps, each as large as its mask; see `places.enlarge_each`. Images may differ in
        size. Pixels whose value is NaN are left out, of the mask, too.
    max_fpr : float, default 0.3

    Returns
    -------
    dict
        `pixel_auroc`, `aupro` and `peak_in_mask`, the fraction of the images with a defect whose
        largest value lies on it; None if no pixel, or every pixel, is defective.

    Raises
    ------
    ValueError
        If a map is infinite somewhere, NaN everywhere or not of its mask's shape, if one of them is
        missing, or if not 0 < max_fpr <= 1.

    Examples
    --------
    >>> mask = np.array([[True, False], [False, False]])
    >>> pixel_metrics([mask], [np.array([[9.0, 1.0], [2.0, 3.0]])])
    {'pixel_auroc': 1.0, 'aupro': 1.0, 'peak_in_mask': 1.0}
    """
    check_range("max_fpr", max_fpr, above=0, at_most=1)
    counts: list[np.ndarray] = [np.zeros(N_BINS, kind) for kind in (np.int64, np.int64, np.float64)]
    normal, defective, overlap = counts
    peaks = []
    for i, (mask, values) in enumerate(zip_longest(masks, maps)):
        if mask is None or values is None:
            raise ValueError(
                f"masks and maps must be equally many; one of them ended after {i} images"
            )
        mask, values = np.asarray(mask, dtype=bool), np.asarray(values, dtype=np.float32)
        if mask.ndim != 2 or mask.shape != values.shape:
            raise ValueError(
                f"mask {mask.shape} and map {values.shape} of image {i} must both be (H, W); "
                "see places.enlarge"
            )
        there = ~np.isnan(values)
        if np.isinf(values).any() or not there.any():
            raise ValueError(f"the map of image {i} is not finite")
        bins, mask = _bins(values), mask & there
        np.add.at(normal, bins[there & ~mask], 1)
        if mask.any():
            # the number of each defective pixel's region
            region = ndimage.label(mask, structure=np.ones((3, 3)))[0][mask]
            np.add.at(defective, bins[mask], 1)
            np.add.at(overlap, bins[mask], 1 / np.bincount(region)[region])
            peaks.append(mask[values == np.nanmax(values)].mean())
    used = np.flatnonzero(normal + defective)[::-1]  # from the highest score downwards
    normal, defective, overlap = (np.append(0, each[used].cumsum()) for each in counts)
    if not normal[-1] or not defective[-1]:
        return {"pixel_auroc": None, "aupro": None, "peak_in_mask": None}
    # the sum of the overlaps is the number of regions
    fpr, tpr, pro = (each / each[-1] for each in (normal, defective, overlap))
    stop = np.searchsorted(fpr, max_fpr, side="right")
    area = metrics.auc(
        np.append(fpr[:stop], max_fpr), np.append(pro[:stop], np.interp(max_fpr, fpr, pro))
    )
    return {
        "pixel_auroc": float(metrics.auc(fpr, tpr)),
        "aupro": float(area / max_fpr),
        "peak_in_mask": float(np.mean(peaks)),
    }


def _bins(values: np.ndarray) -> np.ndarray:
    """The bin of each float32: its bits, read as a number that grows with the value, without 10."""
    # + 0, since -0.0 and 0.0 are equal and their bits are not
    bits = (values + np.float32(0)).view(np.uint32)
    # without the sign, negative values run backwards
    ordered = np.where(bits >> 31, ~bits, bits | np.uint32(2**31))
    return (ordered // (2**32 // N_BINS)).astype(np.intp)
