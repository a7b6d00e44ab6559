"""The detectors by name. Nothing else in the package knows them by name.

To add one, write a subclass of `FeatureAutoencoder` and a function that fits it, and add a line to
`DETECTORS`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from texad.errors import check_choice
from texad.io.atomic import write_tensors
from texad.io.tensors import read_tensors, refusing
from texad.model import autoencoder, codebook, threshold
from texad.model.base import FeatureAutoencoder


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
    smallest_image : int
        In pixels.
    """

    kind: type[FeatureAutoencoder]
    fit: Callable[..., tuple[FeatureAutoencoder, pd.DataFrame]]
    options: tuple[str, ...]
    rules: tuple[str, ...]
    smallest_image: int


DETECTORS = {
    # keeps the rule that was published with it
    "published": Detector(
        autoencoder.Autoencoder,
        autoencoder.fit,
        (
            "hidden",
            "bottleneck",
            "epochs",
            "batch_size",
            "learning_rate",
            "validation_fraction",
            "patience",
        ),
        ("sigma",),
        16,
    ),
    # reconstructs its own training images too well for "sigma"
    "extended": Detector(
        codebook.QuantizedAutoencoder,
        codebook.fit,
        ("bottleneck", "epochs", "validation_fraction", "words"),
        threshold.STRONGEST_FIRST,
        codebook.SMALLEST_IMAGE,
    ),
}


def check(detector: str) -> None:
    """Raise a ValueError if there is no detector of that name."""
    check_choice("detector", detector, DETECTORS)


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
        A row for each epoch: `epoch`, `train_loss`, `validation_loss`.

    Raises
    ------
    ValueError
        If there is no such detector, the features do not fit, or an option is out of range.
    """
    check(detector)
    return DETECTORS[detector].fit(features, **options)


def default_rule(detector: str, n_calibration: int, false_alarms: float = 0.05) -> str:
    """Return the rule of `threshold.RULES` that decides if the user names none."""
    return next(
        rule
        for rule in DETECTORS[detector].rules
        if n_calibration >= threshold.fewest_images(rule, false_alarms)
    )


def save(fitted: FeatureAutoencoder, file: Path) -> None:
    """Write an autoencoder as safetensors; its metadata hold the detector's name and the widths."""
    name = next(name for name, known in DETECTORS.items() if type(fitted) is known.kind)
    widths = {key: str(width) for key, width in fitted.widths.items()}
    write_tensors(file, fitted.state_dict(), {"detector": name} | widths)


def load(file: Path) -> FeatureAutoencoder:
    """Read an autoencoder that `save` wrote.

    Returns
    -------
    FeatureAutoencoder
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
) -> FeatureAutoencoder:
    """Rebuild the autoencoder of a detector from its tensors and widths, in eval mode.

    Raises
    ------
    KeyError, TypeError, RuntimeError
        If they do not fit each other.
    """
    fitted = DETECTORS[detector].kind(**widths)
    fitted.load_state_dict(tensors)
    return fitted.eval().requires_grad_(False)
