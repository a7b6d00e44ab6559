"""The five stages as direct calls: what chapters 1 to 5 leave in a run folder, without teaching.

The batch of notebooks is measured against this. The stages themselves are `texad.pipeline`; here
are the run folder (see `texad.runs.run_folder`) and the figures of chapter 5.
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn import metrics as sklearn_metrics

from texad import pipeline
from texad.data import datasets, screening, splitting
from texad.figures import result_figures
from texad.io.json_files import write_json
from texad.model import extraction, preprocessing, registry, weights
from texad.model.backbone import grid, save_backbone
from texad.model.places import enlarge_each
from texad.model.preprocessing import Sight
from texad.model.threshold import thresholds_by_rule
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
    """Run all stages of one category; returns its run folder.

    Parameters
    ----------
    dataset, category, runs
        See `texad.runs.run_folder.Run`.
    weights_name : str
        See `texad.model.weights.resolve`.
    seed : int
    image_size, calibration_fraction
        Parameters of chapter 1.
    **fit_options
        See `texad.model.autoencoder.fit`.
    """
    run = Run(dataset, category, runs)
    data = datasets.load_category(dataset, category)
    preprocess(run, data, image_size, calibration_fraction, seed)
    extract(run, weights_name, seed)
    fit(run, seed, **fit_options)
    score(run, seed)
    evaluate(run, seed)
    return run.folder


# Each stage reads what the one before has left, as a notebook does.


def preprocess(
    run: Run, data: datasets.Category, image_size: int, calibration_fraction: float, seed: int = 0
) -> None:
    parameters = {"image_size": image_size, "calibration_fraction": calibration_fraction}
    run.start(STAGES[0], seed=seed, detector="published", **parameters)
    run.write(sight=asdict(Sight(image_size)))
    data = screening.readable(data, progress=False)
    kept_out = calibration_fraction if len(data.train) >= splitting.FEW else 0.0
    run.write_images(data, kept_out, seed)
    run.finish()


def extract(run: Run, weights_name: str, seed: int) -> None:
    run.start(STAGES[1], weights=weights_name, seed=seed)
    loaded = weights.load(weights_name, seed)
    run.write(weights={"name": loaded.name, "sha256": loaded.sha256})
    paths = {split: run.data_paths(run.images(split)["path"]) for split in SPLITS}
    options = {"sight": run.sight(), "progress": False}
    backbone = pipeline.make_backbone(loaded, paths["train"], **options)
    pipeline.extract(backbone, paths, run.folder / "features", **options)
    save_backbone(backbone, run.folder / "backbone.safetensors")
    run.write(places=asdict(grid(backbone)))
    run.finish()


def fit(run: Run, seed: int, **options) -> None:
    run.start(STAGES[2], seed=seed, **options)
    features = extraction.load(run.folder / "features" / "train.npy")
    fitted, history = registry.fit("published", features, seed=seed, progress=False, **options)
    registry.save(fitted, run.folder / "autoencoder.safetensors")
    run.write_table("training.csv", history)
    run.finish()


def score(run: Run, seed: int) -> None:
    run.start(STAGES[3], seed=seed, false_alarms=0.05)
    fitted = registry.load(run.folder / "autoencoder.safetensors")
    folder = run.folder / "features"
    features = {split: extraction.load(folder / f"{split}.npy") for split in SPLITS}
    scores, maps = pipeline.score(fitted, features, progress=False)
    found = thresholds_by_rule(scores["train"], scores["calibration"])
    images = {split: run.images(split) for split in SPLITS}
    run.write_array("maps/test.npy", maps["test"])
    run.write_table("scores.csv", pipeline.scores_table(images, scores, found["sigma"]))
    run.write(threshold=found["sigma"], thresholds=found, rule="sigma", false_alarms=0.05)
    run.finish()


def evaluate(run: Run, seed: int) -> None:
    run.start(STAGES[4], seed=seed)
    table, record, images = run.read_table("scores.csv"), run.read(), run.images("test")
    test = table[table["split"] == "test"].reset_index(drop=True)
    maps, sight = run.read_array("maps/test.npy"), run.sight()
    paths, threshold = run.data_paths(images["path"]), record["threshold"]

    def mask(i: int) -> np.ndarray:
        return preprocessing.load_mask(run.data_path(images["mask"][i]), sight, paths[i])

    has_mask = (images["mask"] != "").to_numpy()
    where = run.grid()
    metrics = pipeline.evaluate(test, record["thresholds"], maps, has_mask, mask, where)
    draw(run, test, metrics, threshold)
    run.write_figure("2_heatmaps.png", heatmaps(run, seed, paths, test, maps, mask))
    masks = map(mask, range(len(test)))
    explorer.write_pictures(run.folder / "pictures", paths, maps, masks, sight, where)
    counts = {name: record["data"][name] for name in ("n_train", "n_calibration", "n_test")}
    kept = metrics | counts | {"threshold": threshold, "weights": record["weights"]}
    write_json(run.folder / "metrics.json", kept)
    run.finish()


def draw(run: Run, test: pd.DataFrame, metrics: dict, threshold: float) -> None:
    """Draw the figures that need only scores."""
    scores, labels, auroc = test["score"], test["label"], metrics["image_auroc"]
    fpr, tpr = ([], []) if auroc is None else sklearn_metrics.roc_curve(labels, scores)[:2]
    figures = {
        "1_score_distribution.svg": result_figures.score_distribution(scores, labels, threshold),
        "3_roc_curve.svg": result_figures.roc_curve(fpr, tpr, auroc),
        "4_confusion_matrix.svg": result_figures.confusion_matrix(metrics["confusion"]),
        "5_scores_by_defect.svg": result_figures.scores_by_defect(
            scores, test["defect"], threshold
        ),
    }
    for name, figure in figures.items():
        run.write_figure(name, figure)


def heatmaps(
    run: Run,
    seed: int,
    paths: list[Path],
    test: pd.DataFrame,
    maps: np.ndarray,
    mask: Callable[[int], np.ndarray],
) -> Figure:
    """Draw the second figure: an image of each kind, chosen as chapter 5 does."""
    scores, defects = test["score"].to_numpy(), test["defect"].to_numpy()
    picks = pipeline.one_of_each_kind(defects, seed)
    masks = [mask(i) for i in picks]
    return result_figures.heatmaps(
        preprocessing.load_pictures([paths[i] for i in picks], run.sight()),
        list(enlarge_each(maps[picks], run.grid(), [one.shape for one in masks])),
        masks,
        [f"{defects[i]}\nscore {scores[i]:.3g}" for i in picks],
    )
