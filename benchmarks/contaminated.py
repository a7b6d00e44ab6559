"""Defects among the training images: what they cost, whether they are noticed, and what leaving out
the strangest images mends.

Each round draws good training images by lot, and adds defective ones, none of which is in the test.
Every image is judged by the one of five models that has not seen it. The images whose scores stand
apart are those that `texad fit` warns of. Then as many images as there are defects are left out,
the strangest first, and the rest are fit again, as `texad fit --drop N` does.
"""

import numpy as np
import pandas as pd
from tqdm import tqdm

from benchmarks import material
from benchmarks.material import Options
from benchmarks.measure import Row
from texad import pipeline
from texad.data import groups as grouping
from texad.evaluation import outliers
from texad.evaluation.metrics import image_auroc
from texad.model import registry, scoring, weights

SHARES = (0.0, 0.05, 0.1, 0.2)  # of the training images that are defective
GOOD, TEST = 80, 60  # good training images, and test images of either kind, at most


def run(options: Options) -> list[Row]:
    data = material.category(options)
    samples = [*data.train, *data.test]
    labels = np.array([sample.label for sample in samples])
    drawn = [draw(labels, len(data.train), seed) for seed in range(min(options.repeats, 3))]
    used = np.unique(np.concatenate([part for of_seed in drawn for part in of_seed]))
    paths, labels = [samples[i].path for i in used], labels[used]
    groups = grouping.groups(paths, data.root)
    drawn = [tuple(np.searchsorted(used, part) for part in of_seed) for of_seed in drawn]
    size = options.image_size if options.quick else None
    rounds = []
    for detector in ["extended"] if options.quick else registry.DETECTORS:
        sight = registry.sight(detector, size)
        loaded = weights.load(options.weights)
        backbone = pipeline.make_backbone(loaded, paths, sight=sight, progress=False)
        with material.folder(options) as folder:
            features = pipeline.extract(backbone, {"all": paths}, folder, sight=sight)["all"]
            for seed, (good, bad, test) in enumerate(tqdm(drawn, detector, unit="seed")):
                for share in SHARES:
                    planted = bad[: round(len(good) * share / (1 - share))]
                    train = np.sort([*good, *planted])
                    rounds.append(
                        {"detector": detector, "share": share, "seed": seed}
                        | one_round(detector, features, train, labels, test, groups, seed)
                    )
            del features
    return rows(pd.DataFrame(rounds), {"category": data.name})


def draw(labels: np.ndarray, n_train: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Good training images, the defective ones that are added to them, and the test images."""
    rng = np.random.default_rng(seed)
    of_test = np.arange(len(labels)) >= n_train
    good, bad, new = (
        rng.permutation(np.flatnonzero(kind))
        for kind in (~of_test, labels == 1, of_test & (labels == 0))
    )
    good = good[:GOOD]
    most = min(round(len(good) * SHARES[-1] / (1 - SHARES[-1])), len(bad) // 2)
    return good, bad[:most], np.concatenate([new[:TEST], bad[most:][:TEST]])


def one_round(
    detector: str,
    features: np.ndarray,
    train: np.ndarray,
    labels: np.ndarray,
    test: np.ndarray,
    groups: list[str] | None,
    seed: int,
) -> dict[str, float]:
    """Fit with the defects and without the strangest images, and judge the test by both."""

    def fit(images: np.ndarray) -> tuple[np.ndarray, float]:
        of_these = groups and [groups[i] for i in images]
        some = features.transpose(0, 2, 3, 1)[images].transpose(0, 3, 1, 2)  # as they are stored
        fitted, _ = registry.cross_fit(detector, some, groups=of_these, seed=seed, progress=False)
        held_out, _ = scoring.score_held_out(fitted, some, progress=False)
        scores, _ = scoring.score_features(fitted, features, images=test, progress=False)
        return held_out, image_auroc(labels[test], scores) or np.nan

    is_bad = labels[train] == 1
    scores, auroc = fit(train)
    warned = np.isin(np.arange(len(train)), outliers.apart(scores))
    kept = np.sort(np.argsort(-scores, kind="stable")[is_bad.sum() :])
    return {
        "n_train": len(train),
        "auroc": auroc,
        "auroc_dropped": fit(train[kept])[1] if is_bad.any() else auroc,
        "left": int(is_bad[kept].sum()),
        "defects": int(is_bad.sum()),
        "warned_bad": int(warned[is_bad].sum()),
        "warned_good": int(warned[~is_bad].sum()),
    }


def rows(rounds: pd.DataFrame, details: dict) -> list[Row]:
    """A line for each detector and share."""
    made = []
    for (detector, share), part in rounds.groupby(["detector", "share"], sort=False):
        defects, mean = part["defects"].sum(), part.mean(numeric_only=True)
        good = (part["n_train"] - part["defects"]).sum()
        note = f"warned of {part['warned_good'].sum()} of {good} good images"
        if defects:
            note += (
                f" and {part['warned_bad'].sum()} of {defects} defects; with --drop "
                f"{mean['auroc_dropped']:.3f}, {part['left'].sum()} of {defects} defects left"
            )
        made.append(
            Row(
                "contaminated",
                f"{detector}: AUROC, {share:.0%} defects",
                float(mean["auroc"]),
                "",
                note=note,
                details=details | {"rounds": part.to_dict("records")},
            )
        )
    return made
