"""A detector as one object and one file: from a folder of good images to a decision, without a test set and without labels.

It has scikit-learn's habits: what is chosen is given to the constructor, what is learnt by `fit` ends with an underscore. The stages are those of
chapters 1 to 4, and so are the functions. Some good images are kept out of the fit; their scores say how strange a good image can be, and with
enough of them the false-alarm rate is a promise (see `texad.model.scoring`).
"""

import json
import math
import os
import tempfile
import time
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from texad.data import splitting
from texad.io.atomic import write_tensors
from texad.model import extraction, preprocessing, registry, scoring, weights
from texad.model.backbone import (
    build_backbone,
    calibrate_batchnorm,
    fold_batchnorm,
    folded_backbone,
    stride_in_1x1,
)
from texad.model.base import device
from texad.model.threshold import images_needed, p_values, predict, thresholds_by_rule

FORMAT = 1  # of the file; a later one that cannot be read by this code has another number


@dataclass(frozen=True)
class Prediction:
    """What is said of one image.

    Attributes
    ----------
    path : str
        As given.
    score : float
        NaN if the image could not be read.
    p_value : float
        How likely a good image is to be as strange, see `p_values`; NaN if the image could not be read.
    anomalous : bool
        False if the image could not be read: then nothing is known.
    seconds : float
        From the file to the decision, on one core.
    anomaly_map : ndarray, float32, shape (H, W), or None
        Of the places of the feature map.
    error : str
        Why the image could not be read; else empty.
    """

    path: str
    score: float
    p_value: float
    anomalous: bool
    seconds: float
    anomaly_map: np.ndarray | None = None
    error: str = ""


class AnomalyDetector(BaseEstimator):
    """Learns from good images what is normal, and says of others whether they are.

    Parameters
    ----------
    detector : {"published", "extended"}, default "published"
        See chapters 3 and 8.
    weights : str, default "auto"
        Of the backbone, see `weights.resolve`.
    image_size : int, default 224
        In pixels; a multiple of 16.
    normalize : bool, default False
        Subtract the ImageNet mean and divide by its standard deviation. Off in the published method.
    calibration_fraction : float, default 0.2
        Part of the good images kept out of the fit. More are kept out where `false_alarms` needs them, up to half of all.
    false_alarms : float, default 0.05
        The part of good images that may be called anomalous.
    seed : int, default 0
    progress : bool, default True
        Show progress bars.

    Attributes
    ----------
    threshold_ : float
        A score above it is anomalous.
    rule_ : str
        How it was found: "conformal", which keeps the promise; else "held_out" or "sigma", which promise nothing (see `RULES`).
    train_scores_, calibration_scores_ : ndarray, float32, shape (N,) and (n,)
        Of the images that the autoencoder was fit to, and of those kept out.
    paths_ : dict of str to list of str
        "train" and "calibration": which images these are. Not kept in the file.
    history_ : DataFrame
        The losses of the training. Not kept in the file.
    origin_ : dict
        Where the detector comes from: name and hash of the weights, versions, numbers of images; and under "heat" the scale of its heatmaps, the
        median of the anomaly maps of the images kept out and the largest value of all (see `heatmaps.overlay`).
    """

    def __init__(
        self,
        detector: str = "published",
        *,
        weights: str = "auto",
        image_size: int = preprocessing.IMAGE_SIZE,
        normalize: bool = False,
        calibration_fraction: float = 0.2,
        false_alarms: float = 0.05,
        seed: int = 0,
        progress: bool = True,
    ):
        self.detector = detector
        self.weights = weights
        self.image_size = image_size
        self.normalize = normalize
        self.calibration_fraction = calibration_fraction
        self.false_alarms = false_alarms
        self.seed = seed
        self.progress = progress

    # -- learn -------------------------------------------------------------------------------------

    def fit(self, paths: Sequence[str | Path], y: None = None) -> "AnomalyDetector":
        """Learn from good images.

        Parameters
        ----------
        paths : sequence of path, at least 2
            Files of defect-free images. Their features are kept on disk meanwhile (800 kB each), in the folder for temporary files.
        y : None
            Ignored; there are no labels.

        Returns
        -------
        AnomalyDetector
            Itself.

        Raises
        ------
        ValueError
            If there are fewer than two images, one cannot be read, or a parameter is out of range.
        """
        registry.check(self.detector)
        smallest = registry.DETECTORS[self.detector].smallest_image
        if self.image_size < smallest:
            raise ValueError(
                f"image_size must be at least {smallest} for the {self.detector} detector, "
                f"not {self.image_size}"
            )
        if len(paths) < 2:
            raise ValueError(
                f"a detector needs at least 2 good images, one to learn from and one to calibrate with, and there are {len(paths)}"
            )
        chosen = self._kept_out(len(paths))
        calibration = [Path(path) for i, path in enumerate(paths) if i in chosen]
        train = [Path(path) for i, path in enumerate(paths) if i not in chosen]
        options: dict[str, Any] = {
            "image_size": self.image_size,
            "normalize": self.normalize,
            "progress": self.progress,
        }
        loaded = weights.load(self.weights, self.seed)
        backbone = build_backbone(loaded)
        if loaded.is_random:
            calibrate_batchnorm(backbone, train, **options)
        backbone = fold_batchnorm(backbone)
        with tempfile.TemporaryDirectory(prefix="texad-") as folder:
            F_train = extraction.extract(backbone, train, Path(folder, "train.npy"), **options)
            fitted, self.history_ = registry.fit(
                self.detector, F_train, seed=self.seed, progress=self.progress
            )
            F_calibration = extraction.extract(
                backbone, calibration, Path(folder, "calibration.npy"), **options
            )
            self.train_scores_, train_maps = scoring.score_features(fitted, F_train, progress=False)
            calibration_scores, calibration_maps = scoring.score_features(
                fitted, F_calibration, progress=False
            )
            del F_train, F_calibration  # Windows removes no file that is mapped
        self.backbone_, self.autoencoder_ = backbone, fitted
        self.paths_ = {"train": list(map(str, train)), "calibration": list(map(str, calibration))}
        self.origin_: dict[str, Any] = {
            "weights": {"name": loaded.name, "sha256": loaded.sha256},
            "n_train": len(train),
            "versions": {
                name: version(name) for name in ("texad", "torch", "torchvision", "numpy")
            },
            "heat": [
                float(np.median(calibration_maps)),
                float(max(np.max(calibration_maps), np.max(train_maps))),
            ],
        }
        return self.calibrate_with(calibration_scores)

    def calibrate_with(self, scores: np.ndarray) -> "AnomalyDetector":
        """Set the threshold from scores of good images that the autoencoder was not fit to; the autoencoder stays as it is.

        Parameters
        ----------
        scores : ndarray, shape (n,)
            As from `score_samples`.
        """
        self.calibration_scores_ = np.asarray(scores, dtype=np.float32)
        found = thresholds_by_rule(
            self.train_scores_, self.calibration_scores_, false_alarms=self.false_alarms
        )
        usable = ((rule, found[rule]) for rule in ("conformal", "held_out", "sigma"))
        self.rule_, self.threshold_ = next(
            (rule, threshold) for rule, threshold in usable if threshold is not None
        )
        return self

    @property
    def reachable_(self) -> float:
        """The smallest false-alarm rate that the calibration images can promise: 1 / (n + 1)."""
        return 1 / (len(self.calibration_scores_) + 1)

    def _kept_out(self, n: int) -> set[int]:
        """Which of `n` good images are kept out of the fit: as many as the promise needs, but no more than half, or as `calibration_fraction` says."""
        needed = min(images_needed(self.false_alarms), n // 2)
        return splitting.calibration_images(
            n, max(self.calibration_fraction, needed / n), self.seed
        )

    # -- judge -------------------------------------------------------------------------------------

    def score_samples(self, paths: Iterable[str | Path]) -> np.ndarray:
        """How strange images are; the higher, the stranger.

        Parameters
        ----------
        paths : iterable of path, length N

        Returns
        -------
        ndarray, float32, shape (N,)

        Raises
        ------
        ValueError
            If an image cannot be read.
        """
        return np.array(
            [_readable(prediction).score for prediction in self.stream(paths)], dtype=np.float32
        )

    def decision_function(self, paths: Iterable[str | Path]) -> np.ndarray:
        """Score minus threshold: above 0 where an image is anomalous. As `score_samples` otherwise."""
        return self.score_samples(paths) - np.float32(self.threshold_)

    def predict(self, paths: Iterable[str | Path]) -> np.ndarray:
        """1 where an image is anomalous, 0 where it is normal, as everywhere in this package; ndarray, int64, shape (N,)."""
        return predict(self.score_samples(paths), self.threshold_).astype(np.int64)

    def stream(self, paths: Iterable[str | Path]) -> Generator[Prediction, None, None]:
        """Judge one image after the other, however many there are; a few are in memory at a time.

        Parameters
        ----------
        paths : iterable of path
            It may wait for the next one, as a camera does.

        Yields
        ------
        Prediction
            In the order of `paths`. An image that cannot be read has an `error`, and the next one follows.
        """
        check_is_fitted(self, "threshold_")
        self.backbone_.to(device())
        return extraction.in_order(self._judge, paths)

    @torch.inference_mode()
    def _judge(self, path: str | Path) -> Prediction:
        started = time.perf_counter()
        try:
            images = preprocessing.load_images([Path(path)], self.image_size)
        except ValueError as error:
            return Prediction(
                os.fspath(path),
                np.nan,
                np.nan,
                False,
                time.perf_counter() - started,
                error=str(error),
            )
        images = images.to(device())
        maps = (
            self.backbone_(preprocessing.normalize(images) if self.normalize else images)
            .cpu()
            .numpy()
        )
        scores, anomaly_maps = scoring.score_features(self.autoencoder_, maps, progress=False)
        (p_value,) = p_values(self.calibration_scores_, scores)
        anomalous = bool(predict(scores, self.threshold_)[0])
        return Prediction(
            os.fspath(path),
            float(scores[0]),
            float(p_value),
            anomalous,
            time.perf_counter() - started,
            anomaly_maps[0],
        )

    # -- keep --------------------------------------------------------------------------------------

    def save(self, file: str | Path) -> None:
        """Write the detector to one file (`.safetensors`): about 40 MB, with all that is needed to judge an image, and where it comes from.

        Its metadata hold one entry, `texad`, in JSON: the parameters, the threshold, and `origin_`.
        """
        check_is_fitted(self, "threshold_")
        backbone = self.backbone_.cpu()
        parts = {"backbone": backbone.state_dict(), "autoencoder": self.autoencoder_.state_dict()}
        tensors = {
            f"{part}.{name}": tensor.contiguous()
            for part, state in parts.items()
            for name, tensor in state.items()
        }
        tensors |= {
            name: torch.from_numpy(getattr(self, f"{name}_"))
            for name in ("train_scores", "calibration_scores")
        }
        about = {
            "format": FORMAT,
            "parameters": {
                name: value for name, value in self.get_params().items() if name != "progress"
            },
            "threshold": self.threshold_,
            "rule": self.rule_,
            "n_calibration": len(self.calibration_scores_),
            "widths": self.autoencoder_.widths,
            "stride_in_1x1": stride_in_1x1(backbone),
            "origin": self.origin_,
        }
        write_tensors(
            Path(file), tensors, {"texad": json.dumps(about, ensure_ascii=False, allow_nan=False)}
        )

    @classmethod
    def load(cls, file: str | Path, progress: bool = True) -> "AnomalyDetector":
        """Read a detector that `save` wrote. Nothing in the file is run.

        Raises
        ------
        ValueError
            If there is no such file, or it is no detector of texad.
        """
        try:
            with safe_open(file, framework="pt") as stored:
                about = json.loads((stored.metadata() or {})["texad"])
                if about["format"] != FORMAT:
                    raise ValueError(
                        f"its format is {about['format']}, and this version of texad reads format {FORMAT}"
                    )
                tensors = {name: stored.get_tensor(name) for name in stored.keys()}
            detector = cls(**about["parameters"], progress=progress)
            detector.backbone_ = folded_backbone(_part(tensors, "backbone"), about["stride_in_1x1"])
            detector.autoencoder_ = registry.build(
                detector.detector, _part(tensors, "autoencoder"), about["widths"]
            )
            detector.origin_ = _checked(about["origin"])
            detector.train_scores_ = tensors["train_scores"].numpy()
            return detector.calibrate_with(tensors["calibration_scores"].numpy())
        except (
            SafetensorError,
            OSError,
            KeyError,
            TypeError,
            ValueError,
            AttributeError,
            RuntimeError,
        ) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(
                f"{file} is no detector of texad ({reason}); make one with texad fit FOLDER --out {file}"
            ) from error


def _part(tensors: dict[str, torch.Tensor], part: str) -> dict[str, torch.Tensor]:
    """The tensors whose names begin with a part's, without it."""
    return {
        name.removeprefix(f"{part}."): tensor
        for name, tensor in tensors.items()
        if name.startswith(f"{part}.")
    }


def _checked(origin: dict) -> dict:
    """What a file says of where its detector comes from, if it is all there and of the right kinds; else ValueError."""
    if not isinstance(origin, dict):
        raise ValueError("it does not say where it comes from")
    weights, heat = origin.get("weights"), origin.get("heat", [0, 0])
    if not isinstance(weights, dict) or not all(
        isinstance(weights.get(name), str) for name in ("name", "sha256")
    ):
        raise ValueError("it does not say of which weights it is made")
    if not isinstance(origin.get("n_train"), int):
        raise ValueError("it does not say how many images it has learnt from")
    if (
        not isinstance(heat, list)
        or len(heat) != 2
        or not all(isinstance(value, int | float) and math.isfinite(value) for value in heat)
    ):
        raise ValueError("the scale of its heatmaps is not two numbers")
    return origin


def _readable(prediction: Prediction) -> Prediction:
    if prediction.error:
        raise ValueError(prediction.error)
    return prediction
