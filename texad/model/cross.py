"""Cross-conformal detectors: every good image is learnt from, and every one calibrates.

The good images are dealt into K folds, and for each fold a model is fit to the others. Each image
is scored by the one model that has not seen it: these are the n calibration scores Rᵢ. A new image
is scored by all K models, and the one to which it looks least strange answers: its score is the
minimum s = minₖ sₖ. It is called anomalous if s is above t, the r-th largest Rᵢ, with
r = ⌊α(n + 1)⌋ for a false-alarm rate of α.

What this promises, if the images are exchangeable: P(false alarm) ≤ 2 (r + K − 1) / (n + K). That
is about 2α where n is much larger than K / α, and more where it is not. The images of fold k and a
new one are all new to model k, so the p-value pₖ of the new one among them is valid (see
`threshold.p_values`). If s > t, at most r − 1 of all Rᵢ are at least as large as what they are
compared with, and the mean of the pₖ, weighted by the sizes of the folds and 1, is at most (r − 1 +
K) / (n + K). A mean of valid p-values is at most a with a probability of at most 2a (Vovk and Wang,
"Combining p-values via averaging", Biometrika 107, 2020). The factor 2 is for the worst case. In
practice the rate is at most about α, since all K models have to agree; `python -m benchmarks
promise` measures it, and how much steadier the misses are than with a split.

With the scores of each model instead of their minimum this is cross-conformal prediction (Vovk,
"Cross-conformal predictors", Annals of Mathematics and Artificial Intelligence 74, 2015), which
raises more alarms and knows no single threshold. For K = n it is the "jackknife-minmax" of Barber,
Candès, Ramdas and Tibshirani, "Predictive inference with the jackknife+", Annals of Statistics 49,
2021, whose rate is at most α.
"""

from collections.abc import Sequence

import torch
from torch import nn

from texad.model.base import FeatureAutoencoder
from texad.model.threshold import n_rejected

FOLDS = 5


class CrossFitted(nn.Module):
    """K autoencoders, each fit without the images of one fold.

    Parameters
    ----------
    models : sequence of FeatureAutoencoder, length K
        Of one kind and size.
    folds : Tensor, int64, shape (n,)
        Fold of each image, from 0 to K − 1: the model of this number has not seen it.
    """

    folds: torch.Tensor

    def __init__(self, models: Sequence[FeatureAutoencoder], folds: torch.Tensor):
        super().__init__()
        self.models = nn.ModuleList(models)
        self.register_buffer("folds", folds)

    @property
    def widths(self) -> dict[str, int]:
        """Layer sizes of one model, see `FeatureAutoencoder`."""
        return members(self)[0].widths

    @property
    def reduction(self) -> str:
        """Reduction of the score, see `FeatureAutoencoder`."""
        return members(self)[0].reduction


def members(fitted: FeatureAutoencoder | CrossFitted) -> list[FeatureAutoencoder]:
    """Return the autoencoders of which a detector consists: one, or one for each fold."""
    if not isinstance(fitted, CrossFitted):
        return [fitted]
    return [model for model in fitted.models if isinstance(model, FeatureAutoencoder)]


def proven_rate(n: int, n_folds: int, false_alarms: float) -> float:
    """Bound of the false-alarm rate, 2 (r + K − 1) / (n + K), at most 1.

    Parameters
    ----------
    n : int
        Number of images, or of their groups.
    n_folds : int
        K. For one, which is split conformal prediction, the bound is `false_alarms` itself.
    false_alarms : float
        α.

    Examples
    --------
    >>> round(proven_rate(761, 5, 0.05), 3)
    0.11
    """
    if n_folds == 1:
        return false_alarms
    return min(1.0, 2 * (n_rejected(n, false_alarms) + n_folds - 1) / (n + n_folds))
