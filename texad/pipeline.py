"""The method on one page: the five stages of chapters 1 to 5 as plain calls.

1. Preprocessing: `datasets.load_category` lists the images, `screening.readable` leaves out those
   that cannot be read, `keep_out` draws the calibration images.
2. Features: `make_backbone`, then `extract`.
3. Autoencoder: `registry.fit`.
4. Scores and decisions: `score`, `threshold.thresholds_by_rule`, `scores_table`.
5. Evaluation: `evaluate`.

Nothing here knows of run folders: paths, arrays and tables go in, arrays and tables come out.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from torch import nn

from texad.data import splitting
from texad.evaluation import intervals, metrics, pixel_metrics
from texad.model import extraction, places, scoring, threshold, weights
from texad.model.backbone import (
    build_backbone,
    calibrate_batchnorm,
    fold_batchnorm,
    locate_places,
)
from texad.model.base import FeatureAutoencoder
from texad.model.cross import CrossFitted
from texad.model.preprocessing import SQUARE, Sight

Image = TypeVar("Image")  # whatever stands for one


def keep_out(
    paths: Sequence[Image],
    fraction: float,
    seed: int = 0,
    false_alarms: float | None = None,
    groups: Sequence[str] | None = None,
) -> tuple[list[Image], list[Image]]:
    """Divide good images into those to fit to, and calibration images; both in their order.

    Parameters
    ----------
    paths : sequence
    fraction : float
        Fraction of calibration images, see `splitting.split`.
    seed : int, default 0
    false_alarms : float, optional
        Keep out more where this false-alarm rate needs them, but no more than half.
    groups : sequence of str, optional
        Group of each image, see `splitting.split`.
    """
    if false_alarms is not None:
        n = len(paths if groups is None else {*groups})
        fraction = max(fraction, min(threshold.images_needed(false_alarms), n // 2) / n)
    return splitting.keep_out(paths, fraction, seed, groups)


def make_backbone(
    loaded: weights.Weights,
    train_paths: Sequence[Path],
    *,
    sight: Sight = SQUARE,
    progress: bool = True,
) -> nn.Sequential:
    """Build the folded backbone, and measure with training images where its places lie.

    Random weights are calibrated with training images before.

    Parameters
    ----------
    loaded : Weights
        From `weights.load`.
    train_paths : sequence of Path
    sight : Sight
        How the images are brought to the backbone.
    progress : bool, default True

    Returns
    -------
    nn.Sequential
        Takes (N, 3, H, W), gives (N, C, H/16, W/16), see `backbone.n_channels`.
    """
    backbone = build_backbone(loaded, sight.normalize, sight.layer2)
    sight = replace(sight, size=min(sight.size, 448))  # enough for what is measured here
    if loaded.is_random:
        calibrate_batchnorm(backbone, train_paths, sight=sight, progress=progress)
    return locate_places(fold_batchnorm(backbone), train_paths, sight=sight)


def extract(
    backbone: nn.Sequential,
    paths: Mapping[str, Sequence[Path]],
    folder: Path,
    sight: Sight = SQUARE,
    size: tuple[int, int] | None = None,
    **options: Any,
) -> dict[str, np.ndarray]:
    """Extract the features of each split into a file of `folder`.

    Parameters
    ----------
    backbone : nn.Sequential
    paths : dict of str to sequence of Path
        The images of each split.
    folder : Path
        Gets a file `<split>.npy` for each.
    sight : Sight
    size : (int, int), optional
        H and W; by default the smallest that hold the maps of all splits.
    **options
        See `extraction.extract`.

    Returns
    -------
    dict of str to ndarray, float32, shape (N, C, H, W)
        Memory-mapped. H and W are the same for all splits.
    """
    size = size or extraction.map_size(itertools.chain(*paths.values()), sight)
    options |= {"sight": sight, "size": size}
    return {
        split: extraction.extract(backbone, images, folder / f"{split}.npy", **options)
        for split, images in paths.items()
    }


def score(
    autoencoder: FeatureAutoencoder | CrossFitted,
    features: Mapping[str, np.ndarray],
    **options: Any,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Score the images of each split.

    Parameters
    ----------
    autoencoder : FeatureAutoencoder or CrossFitted
    features : dict of str to ndarray, float32, shape (N, C, H, W)
    **options
        See `scoring.score_features`.

    Returns
    -------
    scores : dict of str to ndarray, float32, shape (N,)
        Of a cross-fitted detector, those of "calibration" are the scores of the training images by
        the models that have not seen them.
    maps : dict of str to ndarray, float32, shape (N, H, W)
        Anomaly maps.
    """
    scores, maps = {}, {}
    for split, of_split in features.items():
        scores[split], maps[split] = scoring.score_features(autoencoder, of_split, **options)
    if isinstance(autoencoder, CrossFitted):
        scores["calibration"], maps["calibration"] = scoring.score_held_out(
            autoencoder, features["train"], **options
        )
    return scores, maps


def scores_table(
    images: Mapping[str, pd.DataFrame],
    scores: Mapping[str, np.ndarray],
    decided_at: float,
    groups: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Put scores, decisions and p-values beside the images: the table `scores.csv`.

    Parameters
    ----------
    images : dict of str to DataFrame
        The images of "train", "calibration" and "test", in this order.
    scores : dict of str to ndarray, shape (N,)
        From `score`.
    decided_at : float
        The threshold.
    groups : sequence of str, optional
        Group of each image with a calibration score.

    Returns
    -------
    DataFrame
        The columns of `images` without `mask`, and `score`, `prediction` (1 for anomalous) and
        `p_value`, which only test images have: training images have been learnt from, and
        calibration images are what p-values compare with. For a cross-fitted detector also
        `held_out_score`, that of a training image by the model that has not seen it.
    """
    table = pd.concat([images[split] for split in images], ignore_index=True).drop(columns="mask")
    scored = [scores[split] for split in images if len(images[split])]
    table["score"] = np.concatenate(scored, dtype=float)
    if len(scores["calibration"]) > len(images["calibration"]):
        table.loc[table["split"] == "train", "held_out_score"] = scores["calibration"]
    table["prediction"] = threshold.predict(table["score"].to_numpy(), decided_at).astype(int)
    table["p_value"] = np.nan
    if len(scores["calibration"]):
        table.loc[table["split"] == "test", "p_value"] = threshold.p_values(
            scores["calibration"], scores["test"], groups
        )
    return table


def evaluate(
    test: pd.DataFrame,
    thresholds: Mapping[str, float | None],
    maps: np.ndarray,
    has_mask: np.ndarray,
    mask: Callable[[int], np.ndarray],
    grid: places.Grid,
) -> dict[str, Any]:
    """Compute all metrics of the test images.

    Parameters
    ----------
    test : DataFrame
        The test images of `scores_table`.
    thresholds : dict of str to float or None
        From `threshold.thresholds_by_rule`.
    maps : ndarray, float32, shape (N, H, W)
        Anomaly maps; may be memory-mapped.
    has_mask : ndarray, bool, shape (N,)
        Defective images without a mask are left out where pixels count.
    mask : callable
        Takes the number of an image, returns its mask, bool, as large as the backbone's input, see
        `preprocessing.load_mask`; called when needed, so that only one is in memory.
    grid : Grid
        Where the places of the maps lie.

    Returns
    -------
    dict
        See `texad.evaluation`; `decisions_by_rule` has the decisions at each threshold.
    """
    labels, scores = test["label"].to_numpy(), test["score"].to_numpy()
    severity = np.full(len(test), np.nan)
    judged = np.flatnonzero(has_mask | (labels == 0)).tolist()

    def judge() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for i in judged:
            one = mask(i)
            if has_mask[i]:
                severity[i] = one.mean()
            height, width = one.shape
            yield one, places.enlarge(maps[i : i + 1], grid, (height, width))[0]

    masks, large = itertools.tee(judge())
    pixels = pixel_metrics.pixel_metrics((one for one, _ in masks), (one for _, one in large))
    f1_max, f1_max_threshold = metrics.f1_max(labels, scores) or (None, None)
    return {
        "image_auroc": metrics.image_auroc(labels, scores),
        "image_auroc_interval": intervals.auroc_interval(labels, scores),
        "average_precision": metrics.average_precision(labels, scores),
        **metrics.decision_metrics(labels, test["prediction"].to_numpy()),
        "f1_max": f1_max,
        "f1_max_threshold": f1_max_threshold,
        "decisions_by_rule": {
            rule: decisions_at(t, labels, scores) for rule, t in thresholds.items()
        },
        "auroc_by_defect": metrics.auroc_by_defect(labels, scores, test["defect"].to_numpy()),
        "auroc_by_severity": metrics.auroc_by_severity(labels, scores, severity),
        **pixels,
    }


def decisions_at(
    decided_at: float | None, labels: np.ndarray, scores: np.ndarray
) -> dict[str, Any] | None:
    """Judge the decisions at a threshold; None for a rule that has none."""
    if decided_at is None:
        return None
    predictions = threshold.predict(scores, decided_at)
    return {"threshold": decided_at, **metrics.decision_metrics(labels, predictions)}


def one_of_each_kind(defects: np.ndarray, seed: int = 0, n: int = 6) -> list[int]:
    """Choose images to show: one good image and one of each kind of defect, `n` at most.

    Parameters
    ----------
    defects : ndarray of str, shape (N,)
        Kind of defect; "good" for normal images.
    seed : int, default 0
    n : int, default 6

    Returns
    -------
    list of int
        Numbers of the images.
    """
    rng = np.random.default_rng(seed)
    kinds = [kind for kind in ("good", *sorted({*defects} - {"good"})) if kind in defects]
    return [int(rng.choice(np.flatnonzero(defects == kind))) for kind in kinds[:n]]
