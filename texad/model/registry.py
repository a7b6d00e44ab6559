"""The detectors by name. Nothing else in the package knows them by name.

To add one, write a subclass of `FeatureAutoencoder` and a function that fits it, and add a line to
`DETECTORS`.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from texad.data import splitting
from texad.errors import check_choice, check_range, printable
from texad.io.atomic import write_tensors
from texad.io.images import WHITE
from texad.io.tensors import read_tensors, refusing
from texad.model import autoencoder, codebook, threshold
from texad.model.base import FeatureAutoencoder
from texad.model.cross import FOLDS, CrossFitted, members
from texad.model.extraction import in_order
from texad.model.preprocessing import STRIDE, Sight


@dataclass(frozen=True)
class Detector:
    """A kind of detector.

    Attributes
    ----------
    kind : type
        Class of the autoencoder.
    fit : callable
        Takes features, returns the autoencoder and the history of its losses.
    options : tuple of str
        Parameters of chapter 3 that `fit` takes.
    rules : tuple of str
        Rules of `threshold.RULES` to decide by if the user names none; the first that there are
        enough calibration images for.
    steps : int
        Of a training.
    shared_steps : int
        Of all trainings of `cross_fit` together; they take less than twice the time of one fit.
    smallest_image : int
        In pixels.
    sight : Sight
        How it looks at an image, if the user says nothing else.
    """

    kind: type[FeatureAutoencoder]
    fit: Callable[..., tuple[FeatureAutoencoder, pd.DataFrame]]
    options: tuple[str, ...]
    rules: tuple[str, ...]
    steps: int
    shared_steps: int
    smallest_image: int
    sight: Sight

    @property
    def promises(self) -> bool:
        """Whether it decides by a rule that bounds the false-alarm rate, if it can."""
        return self.rules[0] == "conformal"


DETECTORS = {
    # keeps the rule that was published with it
    "published": Detector(
        autoencoder.Autoencoder,
        autoencoder.fit,
        (
            "hidden",
            "bottleneck",
            "steps",
            "batch_size",
            "learning_rate",
            "validation_fraction",
            "patience",
        ),
        ("sigma",),
        autoencoder.STEPS,
        2 * autoencoder.STEPS,
        STRIDE,
        Sight(),
    ),
    # reconstructs its own training images too well for "sigma"
    "extended": Detector(
        codebook.QuantizedAutoencoder,
        codebook.fit,
        ("bottleneck", "validation_fraction", "words"),
        threshold.STRONGEST_FIRST,
        codebook.STEPS,
        3 * codebook.STEPS // 2,
        codebook.SMALLEST_IMAGE,
        Sight(keep_aspect=True, normalize=True, layer2=True),
    ),
}
CALIBRATIONS = ("auto", "split", "cross")


def check(detector: str) -> None:
    """Raise a ValueError if there is no detector of that name."""
    check_choice("detector", detector, DETECTORS)


def sight(
    detector: str,
    image_size: int | None = None,
    normalize: bool | None = None,
    region: str = "",
    white: int | None = None,
) -> Sight:
    """Return how a detector looks at an image.

    Parameters
    ----------
    detector : str
    image_size : int, optional
        `Sight.size`; by default the detector's own.
    normalize : bool, optional
        By default the detector's own.
    region : str, optional
        See `Sight`; by default all of an image counts.
    white : int, optional
        See `Sight`; by default 65535.

    Raises
    ------
    ValueError
        If there is no such detector or region, `image_size` does not fit the detector, or `white`
        is out of range.

    Examples
    --------
    >>> sight("extended", image_size=320)
    Sight(size=320, keep_aspect=True, normalize=True, layer2=True, region='', white=65535)
    """
    check(detector)
    known = DETECTORS[detector]
    if image_size is not None:
        check_range(
            f"image_size of the {detector} detector",
            image_size,
            at_least=known.smallest_image,
            multiple_of=STRIDE,
        )
    if region and not Path(region).exists():
        raise ValueError(
            f"region {printable(region)} does not exist: name a mask, or a folder of them"
        )
    return replace(
        known.sight,
        region=os.path.abspath(region) if region else "",
        size=known.sight.size if image_size is None else image_size,
        normalize=known.sight.normalize if normalize is None else normalize,
        white=white or WHITE,
    )


def calibration(detector: str, wanted: str = "auto") -> str:
    """Tell how a detector gets its calibration images.

    Parameters
    ----------
    detector : str
    wanted : {"auto", "split", "cross"}, default "auto"

    Returns
    -------
    {"split", "cross"}
        "split": some good images are kept out of the fit. "cross": each one is kept out of one of
        several fits, see `texad.model.cross`. For "auto", "cross" if the detector decides by a rule
        that needs them.

    Raises
    ------
    ValueError
        If there is no such detector or way.
    """
    check(detector)
    check_choice("calibration", wanted, CALIBRATIONS)
    if wanted != "auto":
        return wanted
    return "cross" if DETECTORS[detector].promises else "split"


def fit(
    detector: str, features: np.ndarray, **options: Any
) -> tuple[FeatureAutoencoder, pd.DataFrame]:
    """Fit a detector, given by its name, to features of defect-free images.

    Parameters
    ----------
    detector : str
        A key of `DETECTORS`.
    features : ndarray, float32, shape (N, C, H, W)
        May be memory-mapped.
    **options
        See `autoencoder.fit` and `codebook.fit`.

    Returns
    -------
    autoencoder : FeatureAutoencoder
    history : DataFrame
        See `base.train_in_steps`.

    Raises
    ------
    ValueError
        If there is no such detector, the features do not fit, or an option is out of range.
    """
    check(detector)
    return DETECTORS[detector].fit(features, **options)


def cross_fit(
    detector: str,
    features: np.ndarray,
    *,
    folds: int = FOLDS,
    groups: Sequence[str] | None = None,
    seed: int = 0,
    progress: bool = True,
    **options: Any,
) -> tuple[CrossFitted, pd.DataFrame]:
    """Fit a model for each fold of the images, to the images of the other folds.

    The models share the steps, see `Detector.shared_steps`. Each is fit on one core, several side
    by side; all begin alike, so that they differ by what they have seen.

    Parameters
    ----------
    detector, features
        As in `fit`.
    folds : int, default 5
        K, at most; there are no more than images, or groups.
    groups : sequence of str, length N, optional
        Group of each image; a group lies in one fold.
    seed : int, default 0
    progress : bool, default True
        Show a progress bar.
    **options
        As in `fit`; `steps` is of one fit.

    Returns
    -------
    fitted : CrossFitted
    history : DataFrame
        Of the model of the first fold, see `base.train_in_steps`.

    Raises
    ------
    ValueError
        As `fit`, or if there are fewer than two images, or groups.
    """
    check(detector)
    numbers = splitting.folds(len(features), folds, np.random.default_rng(seed), groups)
    n_folds = int(numbers.max(initial=0)) + 1
    if n_folds < 2:
        raise ValueError("each fold needs a good image outside it: add images, or groups of them")
    known = DETECTORS[detector]
    steps = options.pop("steps", known.steps) * known.shared_steps // known.steps
    shared = options | {"steps": max(1, steps // n_folds), "seed": seed, "groups": groups}

    def without(fold: int) -> tuple[FeatureAutoencoder, pd.DataFrame]:
        images = np.flatnonzero(numbers != fold)
        return fit(detector, features, images=images, progress=False, **shared)

    models = in_order(without, range(n_folds))
    bar = tqdm(models, "training", n_folds, unit="model", disable=not progress)
    fitted, histories = zip(*bar, strict=True)
    return CrossFitted(fitted, torch.from_numpy(numbers)), histories[0]


def default_rule(detector: str, n_calibration: int, false_alarms: float = 0.05) -> str:
    """Return the rule of `threshold.RULES` that decides if the user names none."""
    return next(
        rule
        for rule in DETECTORS[detector].rules
        if n_calibration >= threshold.fewest_images(rule, false_alarms)
    )


def save(fitted: FeatureAutoencoder | CrossFitted, file: Path) -> None:
    """Write an autoencoder as safetensors; its metadata hold the detector's name and the widths."""
    kind = type(members(fitted)[0])
    name = next(name for name, known in DETECTORS.items() if kind is known.kind)
    widths = {key: str(width) for key, width in fitted.widths.items()}
    write_tensors(file, fitted.state_dict(), {"detector": name} | widths)


def load(file: Path) -> FeatureAutoencoder | CrossFitted:
    """Read an autoencoder, or those of all folds, that `save` wrote.

    Returns
    -------
    FeatureAutoencoder or CrossFitted
        In eval mode, on the CPU.

    Raises
    ------
    ValueError
        If the file is no such autoencoder.
    """
    with refusing(f"{file} is no autoencoder of texad", "train it again"):
        tensors, widths = read_tensors(file)
        # files of earlier versions do not name their detector
        name = widths.pop("detector", "extended" if "words" in widths else "published")
        return build(name, tensors, {key: int(width) for key, width in widths.items()})


def build(
    detector: str, tensors: dict[str, torch.Tensor], widths: dict[str, int]
) -> FeatureAutoencoder | CrossFitted:
    """Rebuild the autoencoders of a detector from their tensors and widths, in eval mode.

    Raises
    ------
    KeyError, TypeError, RuntimeError
        If they do not fit each other.
    """
    kind = DETECTORS[detector].kind
    fitted: FeatureAutoencoder | CrossFitted
    if (folds := tensors.get("folds")) is None:
        fitted = kind(**widths)
    else:
        fitted = CrossFitted([kind(**widths) for _ in range(int(folds.max()) + 1)], folds.clone())
    fitted.load_state_dict(tensors)
    return fitted.eval().requires_grad_(False)
