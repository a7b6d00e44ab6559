"""Cross-conformal detectors: every good image is learnt from, and every one calibrates.

The good images are dealt into K folds, and for each fold a model is fit to the others. Each image
is scored by the one model that has not seen it: these are the n calibration scores Rᵢ. A new image
is scored by all K models, and the model to which it looks least strange answers: its score is the
minimum s = minₖ sₖ. It is called anomalous if s is above t, the r-th largest Rᵢ, with
r = ⌊α(n + 1)⌋ for a false-alarm rate of α.

The promise, if the images are exchangeable: P(false alarm) ≤ (r + K) / (n + K), which is α plus at
most K / n. Take a fold with nₖ images, of which cₖ are among the r largest of all. A new good image,
scored by the model of this fold, is exchangeable with the images of the fold. It is above t if it
is among the r largest with them, and then at most cₖ + 1 images of the fold and it are. So it is
above t with a probability of at most E[cₖ + 1] / (nₖ + 1). All K models must agree, which is no more
likely than the mean of these probabilities, weighted by nₖ + 1: (Σₖ cₖ + K) / (n + K), where Σₖ cₖ =
r. In practice it is below α, since all K models have to agree. The minimum is never above the
scores that the p-values of cross-conformal prediction compare with (Vovk, "Cross-conformal
predictors", Annals of Mathematics and Artificial Intelligence 74, 2015), so their bounds hold, too
(Barber, Candès, Ramdas, Tibshirani, "Predictive inference with the jackknife+", Annals of
Statistics 49, 2021, theorems 1 and 4; its "jackknife-minmax" is this rule for K = n).
"""

from collections.abc import Sequence

import torch
from torch import nn

from texad.model.base import FeatureAutoencoder

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
