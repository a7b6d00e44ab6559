"""A detector as one object and one file: from a folder of good images to a decision.

It needs no test set and no labels, and has scikit-learn's habits: what is chosen is given to the
constructor, what is learnt by `fit` ends with an underscore. The stages are those of chapters 1 to
4 (see `texad.pipeline`). Some good images are kept out of the fit; their scores say how strange a
good image can be, and with enough of them the false-alarm rate is bounded (see
`texad.model.threshold`).
"""

import itertools
import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from torch import nn

from texad import pipeline
from texad.data import splitting
from texad.errors import printable
from texad.evaluation.near_copies import near_copies
from texad.io.atomic import write_tensors
from texad.io.images import find_white, read_size
from texad.io.tensors import read_tensors, refusing
from texad.model import extraction, places, preprocessing, registry, scoring, weights
from texad.model.backbone import folded_backbone, grid, stride_in_1x1
from texad.model.base import FeatureAutoencoder, device
from texad.model.cross import CrossFitted, members
from texad.model.preprocessing import STRIDE, Sight
from texad.model.threshold import (
    STRONGEST_FIRST,
    images_needed,
    n_groups,
    p_values,
    predict,
    thresholds_by_rule,
)

FORMAT = 1  # of the file; a later one that cannot be read by this code has another number
HELD = "in this file"  # stands for the region's mask, which is a tensor of the file


@dataclass(frozen=True)
class Prediction:
    """Score of one image, and the decision.

    Attributes
    ----------
    path : str
        As given.
    score : float
        NaN if the image could not be read.
    p_value : float
        How likely a good image is to be as strange, see `threshold.p_values`; NaN if the image
        could not be read.
    anomalous : bool
        False if the image could not be read: then nothing is known.
    seconds : float
        Time from the file to the decision, on one core.
    anomaly_map : ndarray, float32, shape (H, W), or None
        Anomaly of each place of the feature map, NaN outside the region; where the aspect ratio is
        kept, H and W are those of this image.
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
    """Anomaly detector, fitted to good images only.

    Parameters
    ----------
    detector : {"published", "extended"}, default "published"
        See chapters 3 and 8.
    weights : str, default "auto"
        Weights of the backbone, see `weights.resolve`.
    image_size : int, optional
        Images are resized to about image_size × image_size pixels in all; a multiple of 16. The
        published detector makes squares of them, the extended one keeps their aspect ratio. By
        default the detector's own, 224.
    normalize : bool, optional
        Subtract the ImageNet mean and divide by its standard deviation. By default the extended
        detector does, and the published one does not.
    white : int, optional
        Level that is white in images of 16 bits; higher ones count as white, too. By default the
        white of so few bits as hold all levels of the images that are learnt from, such as 4095,
        see `texad.io.images.find_white`.
    region : str, Path or bytes, optional
        Where images are to be judged: a mask, white there and black elsewhere, which the detector
        keeps; or a folder of such masks, each with the name of its image, see
        `preprocessing.Sight`. By default all of an image counts.
    calibration_fraction : float, optional
        By default every image is learnt from, and every one calibrates, since there are several
        models, each of which has not seen a part of them (see `texad.model.cross`). With a fraction
        there is one model, and so many good images are kept out of its fit; more where
        `false_alarms` needs them, up to half of all.
    false_alarms : float, default 0.05
        Fraction of good images that may be called anomalous.
    seed : int, default 0
    progress : bool, default True
        Show progress bars.

    Attributes
    ----------
    sight_ : Sight
        How it looks at an image.
    threshold_ : float
        A score above it is anomalous.
    rule_ : str
        How it was found: "conformal", which bounds the false-alarm rate; else "held_out" or
        "sigma", which do not (see `threshold.RULES`).
    train_scores_, calibration_scores_ : ndarray, float32, shape (N,) and (n,)
        Scores of the images that the autoencoder was fit to, and of those kept out of a fit.
    calibration_groups_ : list of str or None
        Group of each calibration image.
    paths_ : dict of str to list of str
        The images themselves, "train" and "calibration". Not kept in the file.
    near_copies_ : NearCopies or None
        Whether images seem to come in groups, although none were given (see
        `texad.evaluation.near_copies`). Not kept in the file.
    history_ : DataFrame
        Losses of the training. Not kept in the file.
    origin_ : dict
        Where the detector comes from: name and hash of the weights, versions, numbers of images;
        under "image_size" height and width of the images, in pixels, if all have the same;
        and under "heat" the scale of its heatmaps, the median of the anomaly maps of the images
        kept out and the largest value of all (see `overlay.overlay`).

    Examples
    --------
    Ten images of a grey surface with some noise, and one with a black square:

    >>> import tempfile
    >>> from PIL import Image
    >>> folder, rng = tempfile.TemporaryDirectory(), np.random.default_rng(0)
    >>> paths = [Path(folder.name, f"{i}.png") for i in range(11)]
    >>> for path in paths:
    ...     surface = rng.integers(120, 136, (32, 32, 3), dtype=np.uint8)
    ...     if path == paths[-1]:
    ...         surface[8:20, 8:20] = 0
    ...     Image.fromarray(surface).save(path)

    Real surfaces need real weights, and 224 pixels; this is only quick:

    >>> options = {"weights": "random", "image_size": 32, "progress": False}
    >>> detector = AnomalyDetector(calibration_fraction=0.2, **options)
    >>> detector.fit(paths[:10]).predict(paths[9:])
    array([0, 1])

    One file holds all that is needed to judge images elsewhere:

    >>> detector.save(Path(folder.name, "grey.safetensors"))
    >>> again = AnomalyDetector.load(Path(folder.name, "grey.safetensors"))
    >>> [found.anomalous for found in again.stream(paths[9:])]
    [False, True]
    >>> folder.cleanup()
    """

    def __init__(
        self,
        detector: str = "published",
        *,
        weights: str = "auto",
        image_size: int | None = None,
        normalize: bool | None = None,
        white: int | None = None,
        region: str | Path | bytes | None = None,
        calibration_fraction: float | None = None,
        false_alarms: float = 0.05,
        seed: int = 0,
        progress: bool = True,
    ):
        self.detector = detector
        self.weights = weights
        self.image_size = image_size
        self.normalize = normalize
        self.white = white
        self.region = region
        self.calibration_fraction = calibration_fraction
        self.false_alarms = false_alarms
        self.seed = seed
        self.progress = progress

    # -- learn -------------------------------------------------------------------------------------

    def check_parameters(self) -> Sight:
        """Check the parameters, before anything is computed; `fit` does so, too.

        Returns
        -------
        Sight
            How it will look at an image.

        Raises
        ------
        ValueError, FileNotFoundError
            A parameter is out of range, or there is no such detector, region or file of weights.
        """
        sight = registry.sight(self.detector, self.image_size, self.normalize, white=self.white)
        images_needed(self.false_alarms)
        splitting.keep_out((), self.calibration_fraction or 0, self.seed)
        weights.check(self.weights)
        return _holding(self.region, sight)

    def fit(
        self, paths: Sequence[str | Path], y: None = None, groups: Sequence[str] | None = None
    ) -> "AnomalyDetector":
        """Learn from good images.

        Parameters
        ----------
        paths : sequence of path, at least 2
            Files of defect-free images. Their features are kept on disk meanwhile (800 kB each), in
            the folder for temporary files.
        y : None
            Ignored; there are no labels.
        groups : sequence of str, optional
            Group of each image. Images of one group are alike beyond their kind (photographs of one
            piece, for instance), and are never on both sides of a split.

        Returns
        -------
        AnomalyDetector
            Itself.

        Raises
        ------
        ValueError
            If there are fewer than two images, one cannot be read or has no mask in the folder of
            them, or a parameter is out of range.
        """
        self.sight_ = self.check_parameters()
        if len(paths) < 2:
            raise ValueError(
                "a detector needs at least 2 good images, one to learn from and one to calibrate "
                f"with, and there are {len(paths)}"
            )
        parts = {"train": list(range(len(paths)))}
        if self.calibration_fraction is not None:
            parts["train"], parts["calibration"] = pipeline.keep_out(
                parts["train"], self.calibration_fraction, self.seed, self.false_alarms, groups
            )
        splits = {part: [Path(paths[i]) for i in those] for part, those in parts.items()}
        grouped = {
            part: [groups[i] for i in those] if groups else None for part, those in parts.items()
        }
        loaded = weights.load(self.weights, self.seed)
        self.sight_ = replace(self.sight_, white=self.white or find_white(paths))
        for path in paths:
            self.sight_.mask_of(Path(path))
        sizes = {read_size(path) for path in paths}
        options: dict[str, Any] = {"sight": self.sight_, "progress": self.progress}
        self.backbone_ = pipeline.make_backbone(loaded, splits["train"], **options)
        fit: Callable[..., Any] = registry.fit if "calibration" in parts else registry.cross_fit
        with tempfile.TemporaryDirectory(prefix="texad-") as folder:
            largest = np.max([self.sight_.shape(*size) for size in sizes], axis=0) // STRIDE
            options["size"] = tuple(largest.tolist())
            features = pipeline.extract(self.backbone_, splits, Path(folder), **options)
            self.autoencoder_, self.history_ = fit(
                self.detector,
                features["train"],
                groups=grouped["train"],
                seed=self.seed,
                progress=self.progress,
            )
            names = [str(path) for those in splits.values() for path in those]
            self.near_copies_ = near_copies([*features.values()], names) if not groups else None
            scores, maps = pipeline.score(self.autoencoder_, features, progress=False)
            if "calibration" not in splits:
                splits["calibration"] = splits["train"]
                grouped["calibration"] = grouped["train"]
            del features  # Windows removes no file that is mapped
        self.train_scores_ = scores["train"]
        self.paths_ = {split: [str(path) for path in files] for split, files in splits.items()}
        self.origin_: dict[str, Any] = {
            "weights": {"name": loaded.name, "sha256": loaded.sha256},
            "n_train": len(splits["train"]),
            "versions": {
                name: version(name) for name in ("texad", "torch", "torchvision", "numpy")
            },
            "image_size": list(*sizes) if len(sizes) == 1 else None,
            "heat": [
                float(np.nanmedian(maps["calibration"])),
                max(float(np.nanmax(of_split)) for of_split in maps.values()),
            ],
        }
        return self.calibrate_with(scores["calibration"], grouped["calibration"])

    def calibrate_with(
        self, scores: np.ndarray, groups: Sequence[str] | None = None
    ) -> "AnomalyDetector":
        """Set the threshold from scores of good images; the autoencoder stays as it is.

        Parameters
        ----------
        scores : ndarray, shape (n,)
            From `score_samples`, of images that the autoencoder was not fit to.
        groups : sequence of str, length n, optional
            Group of each image.
        """
        self.calibration_scores_ = np.asarray(scores, dtype=np.float32)
        self.calibration_groups_ = list(groups) if groups else None
        found = thresholds_by_rule(
            self.train_scores_,
            self.calibration_scores_,
            false_alarms=self.false_alarms,
            groups=self.calibration_groups_,
        )
        self.rule_, self.threshold_ = next(
            (rule, at) for rule in STRONGEST_FIRST if (at := found[rule]) is not None
        )
        return self

    @property
    def n_calibration_(self) -> int:
        """Number of calibration images, or of their groups where there are any."""
        return n_groups(len(self.calibration_scores_), self.calibration_groups_)

    @property
    def n_folds_(self) -> int:
        """Number of models that were calibrated together: 1, or that of the folds."""
        fitted = self.autoencoder_
        is_shared = isinstance(fitted, CrossFitted) and not self.origin_.get("calibrated_anew")
        return len(members(fitted)) if is_shared else 1

    @property
    def reachable_(self) -> float:
        """Smallest false-alarm rate that the calibration images can promise: 1 / (n + 1)."""
        return 1 / (self.n_calibration_ + 1)

    # -- judge -------------------------------------------------------------------------------------

    def score_samples(
        self, paths: Iterable[str | Path], in_place_of: Iterable[int] | None = None
    ) -> np.ndarray:
        """Score images: the higher, the stranger.

        Parameters
        ----------
        paths : iterable of path, length N
        in_place_of : iterable of int, optional
            See `stream`.

        Returns
        -------
        ndarray, float32, shape (N,)

        Raises
        ------
        ValueError
            If an image cannot be read.
        """
        return np.array(
            [_readable(found).score for found in self.stream(paths, in_place_of)], dtype=np.float32
        )

    def decision_function(self, paths: Iterable[str | Path]) -> np.ndarray:
        """Score minus threshold, as `score_samples`: above 0 where an image is anomalous."""
        return self.score_samples(paths) - np.float32(self.threshold_)

    def predict(self, paths: Iterable[str | Path]) -> np.ndarray:
        """Predict 1 for an anomalous image and 0 for a normal one; ndarray, int64, shape (N,)."""
        return predict(self.score_samples(paths), self.threshold_).astype(np.int64)

    def stream(
        self, paths: Iterable[str | Path], in_place_of: Iterable[int] | None = None
    ) -> Generator[Prediction, None, None]:
        """Judge one image after the other, however many there are; a few are in memory at a time.

        Parameters
        ----------
        paths : iterable of path
            It may wait for the next one, as a camera does.
        in_place_of : iterable of int, optional
            Number of a calibration image for each path: where there are several models, the one
            that has not seen that image judges, alone. So calibration images were judged; the
            lowest score of all models, which is the default, would be too low to be compared with
            theirs.

        Yields
        ------
        Prediction
            In the order of `paths`. An image that cannot be read has an `error`, and the next one
            follows.
        """
        check_is_fitted(self, "threshold_")
        self.backbone_.to(device())
        fitted = self.autoencoder_
        judges: Iterable[Any] = itertools.repeat(fitted)
        if in_place_of is not None and isinstance(fitted, CrossFitted) and self.n_folds_ > 1:
            judges = (members(fitted)[int(fitted.folds[image])] for image in in_place_of)
        return extraction.in_order(
            lambda pair: self._judge(*pair), zip(paths, judges, strict=False)
        )

    @torch.inference_mode()
    def _judge(self, path: str | Path, fitted: FeatureAutoencoder | CrossFitted) -> Prediction:
        started = time.perf_counter()
        try:
            (maps,) = extraction.features_of(self.backbone_, [Path(path)], self.sight_)
        except ValueError as error:
            return Prediction(
                os.fspath(path),
                np.nan,
                np.nan,
                False,
                time.perf_counter() - started,
                error=str(error),
            )
        scores, anomaly_maps = scoring.score_features(fitted, maps.cpu().numpy(), progress=False)
        (p_value,) = p_values(self.calibration_scores_, scores, self.calibration_groups_)
        return Prediction(
            os.fspath(path),
            float(scores[0]),
            float(p_value),
            bool(predict(scores, self.threshold_)[0]),
            time.perf_counter() - started,
            anomaly_maps[0],
        )

    def enlarge(self, anomaly_map: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
        """Interpolate an anomaly map at the pixels of a picture of its image.

        Parameters
        ----------
        anomaly_map : ndarray, float32, shape (H, W)
            From a `Prediction`.
        size : int or (int, int)
            Height and width of the picture, which need not have the image's own size or shape.

        Returns
        -------
        ndarray, float32, shape (height, width)
            See `places.enlarge`.
        """
        rows, columns = anomaly_map.shape
        looked_at = STRIDE * rows, STRIDE * columns
        return places.enlarge(anomaly_map[None], grid(self.backbone_), looked_at, size)[0]

    # -- keep --------------------------------------------------------------------------------------

    def save(self, file: str | Path) -> None:
        """Write the detector to one file (`.safetensors`): 40 MB, or 60 MB of five models.

        It has all that is needed to judge an image, and says where the detector comes from.
        Its metadata hold one entry, `texad`, in JSON: the parameters, the threshold, where the
        places of the anomaly map lie (see `places.Grid`), and `origin_`.
        """
        check_is_fitted(self, "threshold_")
        backbone = self.backbone_.cpu()
        parts = nn.ModuleDict({"backbone": backbone, "autoencoder": self.autoencoder_})
        tensors = {name: tensor.contiguous() for name, tensor in parts.state_dict().items()} | {
            name: torch.from_numpy(getattr(self, f"{name}_"))
            for name in ("train_scores", "calibration_scores")
        }
        if isinstance(self.sight_.region, bytes):
            tensors["region"] = torch.frombuffer(bytearray(self.sight_.region), dtype=torch.uint8)
        about = {
            "format": FORMAT,
            "parameters": {
                name: value
                for name, value in self.get_params().items()
                if name not in ("progress", "region")
            },
            "threshold": self.threshold_,
            "rule": self.rule_,
            "n_calibration": len(self.calibration_scores_),
            "calibration_groups": self.calibration_groups_,
            "sight": _facts(self.sight_),
            "widths": self.autoencoder_.widths,
            "stride_in_1x1": stride_in_1x1(backbone),
            "places": asdict(grid(backbone)),
            "origin": self.origin_,
        }
        write_tensors(
            Path(file), tensors, {"texad": json.dumps(about, ensure_ascii=False, allow_nan=False)}
        )

    def to_onnx(
        self, file: str | Path, size: tuple[int, int] | None = None, map: str = "places"
    ) -> None:
        """Write the detector as an ONNX file, for programs without texad and torch.

        Its input `image` is uint8, (N, height, width, 3), RGB. Its outputs are `score`, float32,
        (N,); `anomalous`, bool, (N,); and `anomaly_map`, float32, see `map`. Its metadata hold one
        entry, `texad`, in JSON: size of the images, parameters, threshold, where the detector comes
        from, under "resized" the height and width that they are resized to, and under "places" on
        which pixels of the *resized* image the places of an anomaly map are centred: place (i, j)
        on row stride · i + centre[0], column stride · j + centre[1]. The region is in it, too, if
        it is one mask for all images; outside, maps are NaN.

        Scores agree with `score_samples` to about five digits, since numbers are added up in
        another order. A decision can differ only where a score lies so near to the threshold; the
        calibration image whose score is the threshold is such a case.

        Parameters
        ----------
        file : path
            Where it goes (`.onnx`).
        size : (int, int), optional
            Height and width of the images, in pixels; by default those of the training images, if
            all have the same.
        map : {"places", "pixels"}, default "places"
            "places" gives anomaly maps as the detector does, a value for each 16 × 16 pixels of the
            resized image; "pixels" gives them in the size of the images, (N, height, width), see
            `places.enlarge`.

        Raises
        ------
        ValueError
            If onnx is not installed, `size` is needed or out of range, there is no such `map`, or
            the region is a folder of masks.
        """
        from texad.model import onnx_export

        check_is_fitted(self, "threshold_")
        if isinstance(folder := self.sight_.region, str) and folder:
            raise ValueError(
                f"region: an ONNX file holds one mask for all images, and {printable(folder)} is a "
                "folder of masks: name one mask (--region)"
            )
        if not (size or self.origin_.get("image_size")):
            raise ValueError(
                "--size HEIGHT WIDTH is needed: the training images have no one size that could "
                "stand for it, or the detector was fit by an earlier version, which did not keep it"
            )
        height, width = size or self.origin_["image_size"]
        onnx_export.write(
            Path(file),
            backbone=self.backbone_.cpu(),
            autoencoder=self.autoencoder_,
            threshold=self.threshold_,
            grid=grid(self.backbone_),
            size=(height, width),
            sight=self.sight_,
            map=map,
            about={
                "parameters": {"detector": self.detector, "false_alarms": self.false_alarms},
                "sight": _facts(self.sight_),
                "rule": self.rule_,
                "n_calibration": len(self.calibration_scores_),
                # without the images: thousands of hashes
                "origin": {name: value for name, value in self.origin_.items() if name != "images"},
            },
        )

    @classmethod
    def load(
        cls, file: str | Path, progress: bool = True, region: str | Path | None = None
    ) -> "AnomalyDetector":
        """Read a detector that `save` wrote. Nothing in the file is run.

        Parameters
        ----------
        file : path
        progress : bool, default True
            Show progress bars.
        region : str or Path, optional
            Where images are to be judged from now on, see the class; by default where they were
            until now. Needed if that was a folder of masks, which the file does not hold.

        Raises
        ------
        ValueError
            If there is no such file or region, it is no detector of texad, or `region` is needed.
        """
        with refusing(
            f"{file} is no detector of texad", f"make one with texad fit FOLDER --out {file}"
        ):
            tensors, metadata = read_tensors(file)
            about = json.loads(metadata["texad"])
            if about["format"] != FORMAT:
                raise ValueError(
                    f"its format is {about['format']}, and this version of texad reads "
                    f"format {FORMAT}"
                )
            parameters = about["parameters"]
            detector = cls(**parameters, progress=progress)
            # files of earlier versions have squares, and do not say so
            squares = {"size": parameters["image_size"], "normalize": parameters["normalize"]}
            facts = about.get("sight", squares)
            detector.sight_ = Sight(**facts)
            if (kept := Path(facts.get("region", "")).name) == HELD:
                detector.region = tensors["region"].numpy().tobytes()
                preprocessing.read_region(detector.region)
                detector.sight_ = replace(detector.sight_, region=detector.region)
            detector.backbone_ = folded_backbone(
                _part(tensors, "backbone"),
                about["stride_in_1x1"],
                detector.sight_.normalize,
                detector.sight_.layer2,
            )
            detector.autoencoder_ = registry.build(
                detector.detector, _part(tensors, "autoencoder"), about["widths"]
            )
            detector.origin_ = _checked(about["origin"])
            detector.train_scores_ = tensors["train_scores"].numpy()
            detector.calibrate_with(
                tensors["calibration_scores"].numpy(), about.get("calibration_groups")
            )
        if region:
            detector.region, detector.sight_ = region, _holding(region, detector.sight_)
        elif kept and kept != HELD:
            raise ValueError(
                f"region is needed: {file} was fit with the folder {printable(kept)}, a mask for "
                "each image, and these images have masks of their own; name their folder, or one "
                "mask for all of them (--region)"
            )
        return detector


def _holding(region: str | Path | bytes | None, sight: Sight) -> Sight:
    """Give a region to a sight, which holds its mask itself, if there is one for all images."""
    if isinstance(region, str | Path):
        region = registry.sight("published", region=os.fspath(region)).region
    return replace(sight, region=region or "").holding_mask()


def _facts(sight: Sight) -> dict[str, Any]:
    """Describe a sight in JSON; of a folder of masks, only by the name."""
    region = HELD if isinstance(sight.region, bytes) else Path(sight.region).name
    return asdict(replace(sight, region=region))


def _part(tensors: dict[str, torch.Tensor], part: str) -> dict[str, torch.Tensor]:
    """The tensors whose names begin with a part's, without it."""
    return {
        name.removeprefix(f"{part}."): tensor
        for name, tensor in tensors.items()
        if name.startswith(f"{part}.")
    }


def _checked(origin: dict) -> dict:
    """Return what a file says of where its detector comes from, or raise a ValueError."""
    if not isinstance(origin, dict):
        raise ValueError("it does not say where it comes from")
    weights, heat = origin.get("weights"), origin.get("heat", [0, 0])
    size = origin.get("image_size") or [1, 1]
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
    if (
        not isinstance(size, list)
        or len(size) != 2
        or not all(isinstance(side, int) and side > 0 for side in size)
    ):
        raise ValueError("the size of its training images is not two numbers of pixels")
    return origin


def _readable(prediction: Prediction) -> Prediction:
    if prediction.error:
        raise ValueError(prediction.error)
    return prediction
