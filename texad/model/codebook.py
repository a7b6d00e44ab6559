"""The extended detector: an autoencoder whose code is one of a few thousand words.

The published autoencoder may say anything in its code, and so it can describe many a defect well
enough to rebuild it. This one may say only what a normal surface has said before: the code of a
place is replaced by the nearest of 16384 typical codes, the *words* (vector quantization, as in
VQ-VAE), and rebuilt from the word. Encoder and decoder are linear, and the best linear ones are
known without training: the principal components. What is trained are the words, by k-means, which
makes the same loss small as the published training.

Around it: each place is averaged with its neighbours, so that its vector is less noisy, if
neighbours resemble each other; errors are measured in units of what is normal for their place on
held-out images, since image borders are always harder; and the score adds what is wrong everywhere
to what is wrong somewhere. What is stored has one size, however many images there were.

Neural discrete representation learning, van den Oord, Vinyals, Kavukcuoglu, 2017, arXiv:1711.00937.
Principal components as the best linear autoencoder: Baldi and Hornik, Neural Networks 2, 1989.
Averages of neighbours: PatchCore, Roth et al., 2022, arXiv:2106.08265.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from torch.nn import functional

from texad.errors import check_range
from texad.model.base import (
    FeatureAutoencoder,
    blocks,
    check_fit,
    device,
    endless_blocks,
    hold_out,
    missing,
    train_in_steps,
    vectors,
)
from texad.model.extraction import in_order

WORDS = 16384
STEPS = 10  # blocks of 64 images
CHECK_EVERY = 5  # steps
SAMPLE = 192  # images, enough for a covariance of 1024 channels
SMALLEST_IMAGE = 64  # pixels: 4 × 4 places, and its score is the mean of ten
# average neighbours if so much of the variance within an image survives it; of unrelated
# neighbours 9/64 would
KEPT = 1 / 3
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
    averaged : bool or int
        Average each place with its neighbours first.
    """

    reduction = "local_and_global"
    mean: torch.Tensor
    components: torch.Tensor
    codebook: torch.Tensor
    unit: torch.Tensor

    def __init__(
        self,
        channels: int,
        bottleneck: int,
        words: int,
        height: int,
        width: int,
        averaged: bool | int = True,
    ):
        super().__init__()
        self.widths = {
            "channels": channels,
            "bottleneck": bottleneck,
            "words": words,
            "height": height,
            "width": width,
            "averaged": int(averaged),
        }
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("components", torch.zeros(channels, bottleneck))  # orthonormal columns
        self.register_buffer("codebook", torch.zeros(words, bottleneck))
        # root of the normal mean squared error of each place
        self.register_buffer("unit", torch.ones(height, width))

    def prepare(self, features: torch.Tensor) -> torch.Tensor:
        """Average neighbours, if wanted, and divide by the unit of error, (N, C, H, W)."""
        return (average(features) if self.widths["averaged"] else features) / self._unit(features)

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
    averaged: bool | None = None,
    validation_fraction: float = 0.1,
    patience: int = 1,
    min_improvement: float = 0.01,
    seed: int = 0,
    progress: bool = True,
) -> tuple[QuantizedAutoencoder, pd.DataFrame]:
    """Learn components, words and the normal error of each place from defect-free images.

    Neighbouring places of a good description see much the same, and their mean is less noisy. Where
    most of the variance within an image would be averaged away, neighbours differ for good reason,
    and are not averaged. The words start as codes of random places. In each step every code pulls
    its nearest word towards itself, the less the more codes that word has drawn before, so that a
    word ends as the mean of its codes (mini-batch k-means: Sculley, "Web-scale k-means clustering",
    2010). The loss is that of `autoencoder.fit`: the squared error of a whole feature map, averaged
    over the images.

    Parameters
    ----------
    features : ndarray, float32, shape (N, C, H, W)
        Features of defect-free training images. May be memory-mapped.
    images, groups
        As in `autoencoder.fit`.
    bottleneck : int, default 256
        At most C.
    words : int, default 16384
        The size of what is stored depends on it, and not on N. With fewer places than words, some
        words are the same.
    averaged : bool, optional
        Average neighbours? Decided from the features by default, see above.
    steps : int, default 10
        At most. A step takes 64 images, or all where there are fewer.
    validation_fraction, patience, min_improvement, seed, progress
        As in `autoencoder.fit`, but that the validation loss is taken every 5 steps, if there are
        more. On the held-out images the normal error of each place is measured, too; where none is
        held out, on the training images.

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
    check_fit(features, validation_fraction, steps=steps, words=words, patience=patience)
    n_images, channels, height, width = features.shape
    check_range(
        "bottleneck", bottleneck, at_least=1, at_most=channels, hint="the number of channels"
    )
    quantized = QuantizedAutoencoder(channels, bottleneck, words, height, width).to(device()).eval()
    rng = np.random.default_rng(seed)
    images = np.arange(n_images) if images is None else images
    train, validation = hold_out(images, validation_fraction, rng, groups)

    def maps(images: np.ndarray) -> Iterator[torch.Tensor]:  # each (n, C, H, W)
        return (block.permute(0, 3, 1, 2) for block in blocks(features, images))

    def vectors_of(images: np.ndarray) -> Iterator[torch.Tensor]:  # each (n·H·W, C), or fewer
        for block in maps(images):
            yield vectors(quantized.prepare(block).permute(0, 2, 3, 1))

    some = rng.permutation(train)[:SAMPLE]
    if averaged is None:
        before, after = torch.tensor(
            [[_spread(block), _spread(average(block))] for block in maps(some)]
        ).sum(dim=0)
        averaged = bool(after >= KEPT * before)
    quantized.widths["averaged"] = int(averaged)
    sample = torch.cat(list(vectors_of(some)))
    if not torch.isfinite(sample).all():
        raise ValueError("features must be finite")
    quantized.mean.copy_(sample.mean(dim=0))
    quantized.components.copy_(_principal_components(sample - quantized.mean, bottleneck))
    first = rng.permutation(np.resize(np.arange(len(sample)), max(words, len(sample))))[:words]
    quantized.codebook.copy_(quantized.encode(sample[first]))
    floor = max(1e-6 * float(sample.var(dim=0, correction=0).mean()), 1e-12)
    del sample
    drawn = torch.zeros(words, device=device())  # codes that each word has drawn so far

    batches = endless_blocks(features, train, rng)

    def step() -> float:
        block = next(batches).permute(0, 3, 1, 2)
        there = vectors(quantized.prepare(block).permute(0, 2, 3, 1))
        codes = quantized.encode(there)
        numbers = quantized.nearest(codes)
        loss = float(_errors(quantized, there, numbers).sum()) / len(block)
        counts = torch.bincount(numbers, minlength=words)
        drawn.add_(counts)
        sums = torch.zeros_like(quantized.codebook).index_add_(0, numbers, codes)
        pull = sums - counts[:, None] * quantized.codebook
        quantized.codebook += pull / drawn.clamp(min=1)[:, None]
        return finite(loss)

    def validate() -> float:
        losses = (float(_errors(quantized, each).sum()) for each in vectors_of(validation))
        return finite(sum(losses) / len(validation))

    def finite(loss: float) -> float:
        if not np.isfinite(loss):
            raise ValueError("features must be finite")
        return loss

    history = train_in_steps(
        quantized,
        step,
        validate if len(validation) and steps > CHECK_EVERY else None,
        steps=steps,
        check_every=CHECK_EVERY,
        patience=patience,
        min_improvement=min_improvement,
        progress=progress,
    )
    measured = validation if len(validation) else train
    errors = torch.cat([_errors(quantized, each) for each in vectors_of(measured)]) / channels
    lacking = torch.from_numpy(np.isnan(features[measured, 0])).to(device())  # (n, H, W)
    ends = [np.unique(np.isnan(features[images, 0, i, j])) for i, j in ((-1, 0), (0, -1))]
    if max(map(len, ends)) == 1 and (lacking == lacking[:1]).all():
        error = torch.full((height, width), float(errors.mean()) * len(measured), device=device())
        error[~lacking[0]] = errors.reshape(len(measured), -1).sum(dim=0)
    else:  # sizes differ, and so no places correspond
        error = (errors.mean() * len(measured)).expand(height, width)
    finite(float(error.sum()))
    # of few images: the mean of all places replaces what they have not shown; positive, even
    # where nothing varies
    normal = (error + SHRINKAGE * error.mean() / len(measured)) / (len(measured) + SHRINKAGE)
    quantized.unit.copy_(normal.clamp(min=floor).sqrt())
    return quantized.cpu(), history


def _spread(block: torch.Tensor) -> float:
    """Variance of the places within an image, added up over images and channels."""
    return sum(float(vectors(each.permute(1, 2, 0)).var(0, correction=0).sum()) for each in block)


def _principal_components(centred: torch.Tensor, n: int) -> torch.Tensor:
    """Compute the `n` directions in which the vectors vary most, as columns."""
    covariance = (centred.T @ centred).double().cpu() / len(centred)
    # in a thread of one core: the last bits depend on how many cores share the work
    (decomposed,) = in_order(torch.linalg.eigh, [covariance])
    return decomposed.eigenvectors.flip(1)[:, :n].to(centred)


def _errors(
    quantized: QuantizedAutoencoder, vectors: torch.Tensor, numbers: torch.Tensor | None = None
) -> torch.Tensor:
    """Compute each vector's squared error, (n,), with the numbers of the words if known."""
    numbers = quantized.nearest(quantized.encode(vectors)) if numbers is None else numbers
    return torch.square(vectors - quantized.decode(quantized.codebook[numbers])).sum(dim=1)
