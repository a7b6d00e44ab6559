"""The five stages as direct calls of the package: what chapters 1 to 5 leave in a run folder, without what they teach on the way.

This is what the batch of notebooks is measured against, and a short answer to "how would I call this from a program?". The run
folder is that of the notebooks (see `texad.runs.run_folder`), except for the executed notebooks themselves.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn import metrics as sklearn_metrics

from texad.data import datasets, screening
from texad.evaluation.intervals import auroc_interval
from texad.evaluation.metrics import (
    auroc_by_defect,
    auroc_by_severity,
    average_precision,
    decision_metrics,
    f1_max,
    image_auroc,
)
from texad.evaluation.pixel_metrics import pixel_metrics, upsample, upsample_each
from texad.figures import result_figures
from texad.model import autoencoder, extraction, preprocessing, registry, scoring, weights
from texad.model.backbone import build_backbone, calibrate_batchnorm, fold_batchnorm, save_backbone
from texad.model.threshold import p_values, predict, thresholds_by_rule
from texad.runs.run_folder import SPLITS, STAGES, Run
from texad.teaching import explorer


def run_category(
    dataset: str | Path,
    category: str,
    runs: str | Path,
    weights_name: str = "auto",
    seed: int = 0,
    image_size: int = preprocessing.IMAGE_SIZE,
    calibration_fraction: float = 0.2,
    **fit_options,
) -> Path:
    """Everything for one category; returns its run folder.

    Parameters
    ----------
    dataset, category, runs
        As for `texad.runs.run_folder.Run`.
    weights_name : str
        As for `texad.model.weights.resolve`.
    seed : int
    image_size, calibration_fraction
        Parameters of chapter 1.
    **fit_options
        For `texad.model.autoencoder.fit`.
    """
    run = Run(dataset, category, runs)
    read_data(
        run, datasets.load_category(dataset, category), image_size, calibration_fraction, seed
    )
    extract_features(run, weights_name, seed)
    fit(run, seed, **fit_options)
    score(run, seed)
    evaluate(run, seed)
    return run.folder


def read_data(
    run: Run, data: datasets.Category, image_size: int, calibration_fraction: float, seed: int
) -> None:
    run.start(
        STAGES[0], seed=seed, image_size=image_size, calibration_fraction=calibration_fraction
    )
    run.write_images(screening.readable(data, progress=False), calibration_fraction, seed)
    run.finish()


def extract_features(run: Run, weights_name: str, seed: int) -> None:
    run.start(STAGES[1], weights=weights_name, seed=seed, normalize=False)
    loaded = weights.load(weights_name, seed)
    run.write_weights(loaded)
    backbone = build_backbone(loaded)
    options = {"image_size": run.parameter("image_size"), "progress": False}
    paths = {split: run.data_paths(run.images(split)["path"]) for split in SPLITS}
    if loaded.is_random:
        calibrate_batchnorm(backbone, paths["train"], **options)
    folded = fold_batchnorm(backbone)
    for split in SPLITS:
        extraction.extract(
            folded, paths[split], run.folder / "features" / f"{split}.npy", **options
        )
    save_backbone(folded, run.folder / "backbone.safetensors")
    run.finish()


def fit(run: Run, seed: int, **options) -> None:
    run.start(STAGES[2], detector="published", seed=seed, **options)
    fitted, history = autoencoder.fit(
        extraction.load(run.folder / "features" / "train.npy"), seed=seed, progress=False, **options
    )
    registry.save(fitted, run.folder / "autoencoder.safetensors")
    run.write_table("training.csv", history)
    run.finish()


def score(run: Run, seed: int, false_alarms: float = 0.05) -> None:
    run.start(STAGES[3], seed=seed, false_alarms=false_alarms)
    fitted = registry.load(run.folder / "autoencoder.safetensors")
    scores, maps = {}, {}
    for split in SPLITS:
        scores[split], maps[split] = scoring.score_features(
            fitted, extraction.load(run.folder / "features" / f"{split}.npy"), progress=False
        )
    run.write_array("maps/test.npy", maps["test"])
    thresholds = thresholds_by_rule(
        scores["train"], scores["calibration"], false_alarms=false_alarms
    )
    table = pd.concat([run.images(split) for split in SPLITS], ignore_index=True).drop(
        columns="mask"
    )
    table["score"] = np.concatenate([scores[split] for split in SPLITS], dtype=float)
    table["prediction"] = predict(table["score"], thresholds["sigma"]).astype(int)
    table["p_value"] = np.nan
    if len(scores["calibration"]):
        table.loc[table["split"] == "test", "p_value"] = p_values(
            scores["calibration"], scores["test"]
        )
    run.write_table("scores.csv", table)
    run.write(
        threshold=thresholds["sigma"],
        thresholds=thresholds,
        rule="sigma",
        false_alarms=false_alarms,
    )
    run.finish()


def evaluate(run: Run, seed: int) -> None:
    run.start(STAGES[4], seed=seed)
    table, record, image_size = (
        run.read_table("scores.csv"),
        run.read(),
        run.parameter("image_size"),
    )
    test = table[table["split"] == "test"].reset_index(drop=True)
    scores, labels, defects = (test[name].to_numpy() for name in ("score", "label", "defect"))
    images, maps, threshold = (
        run.images("test"),
        run.read_array("maps/test.npy"),
        record["threshold"],
    )
    paths = run.data_paths(images["path"])

    def mask(i: int) -> np.ndarray:
        return preprocessing.load_mask(run.data_path(images["mask"][i]), image_size)

    auroc = image_auroc(labels, scores)
    decisions = decision_metrics(labels, test["prediction"])
    draw(run, scores, labels, defects, threshold, auroc, decisions["confusion"])
    run.write_figure(
        "2_heatmaps.png", heatmaps(seed, paths, scores, defects, maps, mask, image_size)
    )
    explorer.write_pictures(
        run.folder / "pictures", paths, maps, map(mask, range(len(images))), image_size
    )

    has_mask = (images["mask"] != "").to_numpy()
    severity = [mask(i).mean() if has_mask[i] else np.nan for i in range(len(images))]
    judged = np.flatnonzero(has_mask | (labels == 0))
    best_f1, best_threshold = f1_max(labels, scores) or (None, None)
    by_rule = dict.fromkeys(record["thresholds"])
    for rule, t in record["thresholds"].items():
        if t is not None:
            by_rule[rule] = {
                "threshold": t,
                **decision_metrics(labels, predict(scores, t)),
            }
    run.write_metrics(
        {
            "image_auroc": auroc,
            "image_auroc_interval": auroc_interval(labels, scores),
            "average_precision": average_precision(labels, scores),
            **decisions,
            "f1_max": best_f1,
            "f1_max_threshold": best_threshold,
            "threshold": threshold,
            "decisions_by_rule": by_rule,
            "auroc_by_defect": auroc_by_defect(labels, scores, defects),
            "auroc_by_severity": auroc_by_severity(labels, scores, severity),
            **pixel_metrics(map(mask, judged), upsample_each(maps[judged], image_size)),
            **{name: record["data"][name] for name in ("n_train", "n_calibration", "n_test")},
            "weights": record["weights"],
        }
    )
    run.finish()


def draw(
    run: Run,
    scores,
    labels,
    defects,
    threshold: float,
    auroc: float | None,
    confusion: dict[str, int],
) -> None:
    """The figures that need only scores."""
    fpr, tpr = ([], []) if auroc is None else sklearn_metrics.roc_curve(labels, scores)[:2]
    run.write_figure(
        "1_score_distribution.svg", result_figures.score_distribution(scores, labels, threshold)
    )
    run.write_figure("3_roc_curve.svg", result_figures.roc_curve(fpr, tpr, auroc))
    run.write_figure("4_confusion_matrix.svg", result_figures.confusion_matrix(confusion))
    run.write_figure(
        "5_scores_by_defect.svg", result_figures.scores_by_defect(scores, defects, threshold)
    )


def heatmaps(seed: int, paths, scores, defects, maps, mask, image_size: int, n: int = 6):
    """The second figure: an image of each kind, chosen as chapter 5 does."""
    rng = np.random.default_rng(seed)
    kinds = [
        kind for kind in ["good", *sorted(set(defects) - {"good"})] if (defects == kind).any()
    ][:n]
    picks = [int(rng.choice(np.flatnonzero(defects == kind))) for kind in kinds]
    return result_figures.heatmaps(
        preprocessing.load_pictures([paths[i] for i in picks], image_size),
        upsample(maps[picks], image_size),
        [mask(i) for i in picks],
        [f"{defects[i]}\nscore {scores[i]:.3g}" for i in picks],
    )
