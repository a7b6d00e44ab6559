"""The extended detector: an autoencoder whose code is one of a few hundred words.

The published autoencoder may say anything in its code, and so it can describe many a defect well
enough to rebuild it. This one may say only what a normal surface has said before: the code of a
place is replaced by the nearest of 768 codes of normal places, the *words* (vector quantization, as
in VQ-VAE), and rebuilt from the word. Encoder and decoder are linear, and the best linear ones are
known without training: the principal components.

The words are chosen so that no normal code is far from all of them: again and again, the code that
is farthest from the words so far becomes one. Means of many codes, as k-means finds them, would be
nearer to most codes, but lie where no normal code is, and far from what is rare and normal.

What it is given of a place are the features of layer3 and, finer, those of layer2, both with the
same weight, less half of what all places of the image have in common: a lamp that grows old changes
every place alike, and is no defect.

Around it: errors are measured in units of what is normal for their place on held-out images, since
image borders are always harder; and the score adds what is wrong everywhere to what is wrong
somewhere. What is stored has one size, however many images there were.

Neural discrete representation learning, van den Oord, Vinyals, Kavukcuoglu, 2017, arXiv:1711.00937.
Principal components as the best linear autoencoder: Baldi and Hornik, Neural Networks 2, 1989.
Words that cover: Gonzalez, "Clustering to minimize the maximum intercluster distance", Theoretical
Computer Science 38, 1985; for anomalies: PatchCore, Roth et al., 2022, arXiv:2106.08265.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from torch.nn import functional

from texad.errors import check_range
from texad.model.backbone import CHANNELS
from texad.model.base import (
    FeatureAutoencoder,
    blocks,
    check_fit,
    device,
    hold_out,
    missing,
    train_in_steps,
    vectors,
)
from texad.model.extraction import in_order

WORDS = 768
PLACES = 8  # of the training images for each word, at least: else a word is a place
STEPS = 10  # in which the words are chosen
VECTORS = 40_000  # at most, enough for a covariance of 1536 channels
IMAGES = 1024  # at most, that they are of: the more, the more of what is rare is among them
CENTRED = 50  # percent of an image's mean vector that are taken away
PROJECTED = 64  # numbers of a code, where the farthest one is sought
LOOKED_AT = 4096  # vectors of the training loss
SMALLEST_IMAGE = 64  # pixels: 4 × 4 places, and its score is the mean of ten
# a place's normal error counts as if so many more images had shown the mean of all places
SHRINKAGE = 10


class QuantizedAutoencoder(FeatureAutoencoder):
    """Encoder: C → `bottleneck`, linear. Code: the nearest word. Decoder: `bottleneck` → C, linear.

    Parameters
    ----------
    channels : int
        C, the length of a feature vector.
    bottleneck : int
        Length of a word.
    words : int
        Number of words.
    height, width : int
        H and W: the errors of each place have a unit of their own. Maps of another size have one
        unit for all places.
    averaged : int
        Whether to average each place with its neighbours first; only files of earlier versions do.
    centred : int
        Percentage of an image's mean vector that is subtracted from all its places; 0 in files of
        earlier versions.
    finer : int
        How many of the C channels are layer2's. They are multiplied by one number, so that they
        vary as much as the others together.
    """

    reduction = "local_and_global"
    mean: torch.Tensor
    components: torch.Tensor
    codebook: torch.Tensor
    unit: torch.Tensor
    weight: torch.Tensor

    def __init__(
        self,
        channels: int,
        bottleneck: int,
        words: int,
        height: int,
        width: int,
        averaged: int = 1,
        centred: int = 0,
        finer: int = 0,
    ):
        super().__init__()
        self.widths = {
            "channels": channels,
            "bottleneck": bottleneck,
            "words": words,
            "height": height,
            "width": width,
            "averaged": averaged,
            "centred": centred,
            "finer": finer,
        }
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("components", torch.zeros(channels, bottleneck))  # orthonormal columns
        self.register_buffer("codebook", torch.zeros(words, bottleneck))
        # root of the normal mean squared error of each place
        self.register_buffer("unit", torch.ones(height, width))
        if finer:
            self.register_buffer("weight", torch.ones(()))

    def prepare(self, features: torch.Tensor) -> torch.Tensor:
        """Divide what `describe` makes of features by the unit of error, (N, C, H, W)."""
        if self.widths["averaged"]:
            features = average(features)
        described = self.describe(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return described / self._unit(features)

    def describe(self, features: torch.Tensor) -> torch.Tensor:
        """Weigh the layers, and take away some of what is the same in a whole image.

        That is mostly the light, the exposure and the camera. It changes more from one batch of
        good pieces to the next than many a defect changes anything. Without the rest, however, a
        defect that is everywhere would be invisible.

        Parameters
        ----------
        features : Tensor, float32, shape (N, H, W, C)
            Missing places are NaN, and stay so.
        """
        if n := self.widths["finer"]:
            coarse, finer = features.split([features.shape[3] - n, n], dim=3)
            features = torch.cat([coarse, finer * self.weight], dim=3)
        if percent := self.widths["centred"]:
            features = features - percent / 100 * features.nanmean(dim=(1, 2), keepdim=True)
        return features

    def forward(self, prepared: torch.Tensor) -> torch.Tensor:
        """Reconstruct prepared feature maps: (N, C, H, W) in, the same shape out."""
        unit = self._unit(prepared)
        vectors = (prepared * unit).permute(0, 2, 3, 1)  # (N, H, W, C)
        words = self.codebook[self.nearest(self.encode(vectors.reshape(-1, vectors.shape[-1])))]
        return self.decode(words).reshape(vectors.shape).permute(0, 3, 1, 2) / unit

    def _unit(self, maps: torch.Tensor) -> torch.Tensor:
        whole = self.unit.shape == maps.shape[2:]
        return self.unit if whole else self.unit.square().mean().sqrt()

    def encode(self, vectors: torch.Tensor) -> torch.Tensor:
        """Encode vectors as codes: (n, C) → (n, bottleneck)."""
        return (vectors - self.mean) @ self.components

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """Decode codes as vectors: (n, bottleneck) → (n, C)."""
        return codes @ self.components.T + self.mean

    def nearest(self, codes: torch.Tensor, batch_size: int = 2048) -> torch.Tensor:
        """Return the number of each code's nearest word: (n, bottleneck) → int64, (n,)."""
        # |z − w|²/2 = |z|²/2 − z·w + |w|²/2, and |z|² is the same for all words
        half = torch.square(self.codebook).sum(dim=1) / 2
        return torch.cat(
            [
                torch.addmm(half, part, self.codebook.T, alpha=-1).argmin(dim=1)
                for part in codes.split(batch_size)
            ]
        )


def average(features: torch.Tensor) -> torch.Tensor:
    """Average each place with its neighbours, (N, C, H, W).

    Two means of 2 x 2 places after one another weigh a place 4, its neighbours 2, and those at its
    corners 1. Places that are missing (NaN) have no part in it, as those beyond the border.
    """

    def of_corners(maps: torch.Tensor) -> torch.Tensor:  # (N, C, H + 1, W + 1)
        return functional.avg_pool2d(maps, 2, stride=1, padding=1, count_include_pad=False)

    if (lacking := missing(features)) is None:
        return functional.avg_pool2d(of_corners(features), 2, stride=1)
    share = of_corners((~lacking).to(features.dtype)).clamp(min=1 / 4)
    corners = of_corners(features.masked_fill(lacking, 0)) / share
    return functional.avg_pool2d(corners, 2, stride=1).masked_fill(lacking, torch.nan)


@torch.inference_mode()
def fit(
    features: np.ndarray,
    *,
    images: np.ndarray | None = None,
    groups: Sequence[str] | None = None,
    bottleneck: int = 256,
    words: int = WORDS,
    steps: int = STEPS,
    validation_fraction: float = 0.1,
    seed: int = 0,
    progress: bool = True,
) -> tuple[QuantizedAutoencoder, pd.DataFrame]:
    """Learn components, words and the normal error of each place from defect-free images.

    The first word is a random code, and each other one the code that is farthest from all words
    before it, in a sample of 40,000 vectors. The loss is that of `autoencoder.fit`: the squared
    error of a whole feature map, averaged over the images.

    Parameters
    ----------
    features : ndarray, float32, shape (N, C, H, W)
        Features of defect-free training images. May be memory-mapped. Places that are missing (NaN)
        are left out. Where images differ in size, places do not correspond, and all have the same
        unit of error.
    images, groups
        As in `autoencoder.fit`.
    bottleneck : int, default 256
        At most C.
    words : int, default 768
        At most, and one for every 8 places of the N images. The size of what is stored depends on
        it, and not on N.
    steps : int, default 10
        Each chooses as many of the words.
    validation_fraction, seed, progress
        As in `autoencoder.fit`. On the held-out images the normal error of each place is measured;
        where none is held out, on the training images.

    Returns
    -------
    quantized : QuantizedAutoencoder
        In eval mode, on the CPU.
    history : DataFrame
        See `base.train_in_steps`.

    Raises
    ------
    ValueError
        If there are no features, they are not finite, or a parameter is out of range.
    """
    check_fit(features, validation_fraction, steps=steps, words=words)
    n_images, channels, height, width = features.shape
    check_range(
        "bottleneck", bottleneck, at_least=1, at_most=channels, hint="the number of channels"
    )
    # of all images: the models of all folds have one size
    words = min(words, 1 + features[:, 0].size // PLACES)
    quantized = QuantizedAutoencoder(
        channels,
        bottleneck,
        words,
        height,
        width,
        averaged=0,
        centred=CENTRED,
        finer=max(0, channels - CHANNELS),
    )
    quantized.to(device()).eval()
    rng = np.random.default_rng(seed)
    images = np.arange(n_images) if images is None else images
    train, validation = hold_out(images, validation_fraction, rng, groups)

    sampled = np.sort(rng.permutation(train)[:IMAGES])
    if quantized.widths["finer"]:
        varying = finite(vectors(next(blocks(features, sampled)))).var(dim=0, correction=0)
        coarse, finer = varying[:CHANNELS].sum(), varying[CHANNELS:].sum()
        quantized.weight.copy_((coarse / finer.clamp(min=1e-12)).sqrt())
    places, parts = 0, []
    for block in blocks(features, sampled):
        there = vectors(quantized.describe(block))
        places += len(there)
        some = rng.permutation(len(there))[: -(-VECTORS * len(block) // len(sampled))]
        parts.append(there[torch.from_numpy(some)])
    sample = torch.cat(parts)
    del parts
    quantized.mean.copy_(finite(sample.mean(dim=0)))
    quantized.components.copy_(_principal_components(sample - quantized.mean, bottleneck))
    floor = max(1e-6 * float(sample.var(dim=0, correction=0).mean()), 1e-12)
    looked_at, codes = sample[rng.permutation(len(sample))[:LOOKED_AT]], quantized.encode(sample)
    del sample
    # distances hardly change by a random projection, and are found sooner
    seen = codes @ torch.from_numpy(rng.normal(size=(bottleneck, PROJECTED))).to(codes)
    first = int(rng.integers(len(codes)))
    quantized.codebook[:] = codes[first]
    distances = _squares(seen, seen[first])

    def errors_of(images: np.ndarray) -> Iterator[torch.Tensor]:  # each (n, H, W)
        for block in map(quantized.describe, blocks(features, images)):
            finite(vectors(block))
            yield _errors(quantized, block.reshape(-1, channels)).reshape(block.shape[:3])

    ends = iter(np.linspace(1, words, steps + 1).astype(int)[1:].tolist())
    known = 1

    def step() -> float:
        nonlocal known, distances
        end = next(ends)
        for word in range(known, end):
            farthest = int(distances.argmax())
            quantized.codebook[word] = codes[farthest]
            distances = torch.minimum(distances, _squares(seen, seen[farthest]))
        known = end
        return float(_errors(quantized, looked_at).mean()) * places / len(sampled)

    def validate() -> float:
        return sum(float(each.nansum()) for each in errors_of(validation)) / len(validation)

    history = train_in_steps(
        quantized,
        step,
        validate if len(validation) else None,
        steps=steps,
        check_every=max(1, steps // 2),
        patience=steps,
        min_improvement=0,
        progress=progress,
    )
    error, counts = torch.zeros(2, height, width, device=device())
    for each in errors_of(validation if len(validation) else train):
        error += each.nansum(dim=0) / channels
        counts += (~each.isnan()).sum(dim=0)
    normal = finite(error.sum() / counts.sum())
    if _alike(features, images):
        # of few images: the mean of all places replaces what they have not shown
        normal = (error + SHRINKAGE * normal) / (counts + SHRINKAGE)
    # positive, even where nothing varies
    quantized.unit.copy_(normal.clamp(min=floor).sqrt())
    return quantized.cpu(), history


def finite(values: torch.Tensor) -> torch.Tensor:
    """Return the values, or raise a ValueError if features were not finite."""
    if not torch.isfinite(values).all():
        raise ValueError("features must be finite")
    return values


def _alike(features: np.ndarray, images: np.ndarray) -> bool:
    """Tell whether all maps have the same shape: the same places at their end are missing."""
    last = np.isnan(np.concatenate([features[images, 0, -1], features[images, 0, :, -1]], axis=1))
    return bool((last == last[:1]).all())


def _principal_components(centred: torch.Tensor, n: int) -> torch.Tensor:
    """Compute the `n` directions in which the vectors vary most, as columns."""
    covariance = (centred.T @ centred).double().cpu() / len(centred)
    # in a thread of one core: the last bits depend on how many cores share the work
    (decomposed,) = in_order(torch.linalg.eigh, [covariance])
    return decomposed.eigenvectors.flip(1)[:, :n].to(centred)


def _errors(quantized: QuantizedAutoencoder, vectors: torch.Tensor) -> torch.Tensor:
    """Compute each vector's squared error, (n,)."""
    words = quantized.codebook[quantized.nearest(quantized.encode(vectors))]
    return torch.square(vectors - quantized.decode(words)).sum(dim=1)


def _squares(vectors: torch.Tensor, one: torch.Tensor) -> torch.Tensor:
    """Compute the squared distance of each vector to one of them, (n,)."""
    return torch.square(vectors - one).sum(dim=1)
