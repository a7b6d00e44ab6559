"""Thresholds: is the promise kept, and how far does it move with the seed?

Each round has a seed of its own and fits every detector in two ways: split (a fifth of the good
images, in whole groups, is kept out to calibrate with) and cross (each image is kept out of one of
five models; see `texad.model.cross`). The threshold of the rule conformal is then tried on the test
images, none of which took part. The seconds are those of the fits alone, one after the other.
"""

import time

import numpy as np
import pandas as pd
from tqdm import tqdm

from benchmarks import material
from benchmarks.material import Options
from benchmarks.measure import Row, median, spread
from texad.data import groups as grouping
from texad.data import splitting
from texad.evaluation.metrics import image_auroc
from texad.model import registry, scoring, threshold

FALSE_ALARMS = 0.05
KEPT_OUT = 0.2


def run(options: Options) -> list[Row]:
    data = material.category(options)
    train, test = ([sample.path for sample in split] for split in (data.train, data.test))
    found = grouping.groups(train, data.root)
    labels = np.array([sample.label for sample in data.test])
    fast, _ = material.networks(options, train)
    with material.folder(options) as folder:
        features = material.extracted(options, fast, train, folder / "train.npy")
        new = material.extracted(options, fast, test, folder / "test.npy")
        steps = {"steps": 3, "words": 64} if options.quick else {}
        rounds = [
            {"detector": detector, "way": way, "seed": seed}
            | one_round(detector, way, features, new, labels, found, seed, steps)
            for seed in tqdm(range(options.repeats), "promise", unit="seed")
            for detector in registry.DETECTORS
            for way in ("split", "cross")
        ]
    return rows(pd.DataFrame(rounds), {"category": data.name, "n_train": len(train)})


def one_round(
    detector: str,
    way: str,
    features: np.ndarray,
    new: np.ndarray,
    labels: np.ndarray,
    groups: list[str] | None,
    seed: int,
    steps: dict[str, int],
) -> dict[str, float]:
    """Fit once, set the threshold, and count on the test images."""
    known = registry.DETECTORS[detector].options
    shared = {name: value for name, value in steps.items() if name in known}
    shared |= {"seed": seed, "progress": False}
    started = time.perf_counter()
    if way == "cross":
        fitted, _ = registry.cross_fit(detector, features, groups=groups, **shared)
        seconds = time.perf_counter() - started
        kept_out = np.arange(len(features))
        calibration, _ = scoring.score_held_out(fitted, features, progress=False)
    else:
        rng = np.random.default_rng(seed)
        images, kept_out = splitting.split(len(features), KEPT_OUT, rng, groups)
        fitted, _ = registry.fit(detector, features, images=images, groups=groups, **shared)
        seconds = time.perf_counter() - started
        calibration, _ = scoring.score_features(fitted, features, images=kept_out, progress=False)
    of_these = None if groups is None else [groups[i] for i in kept_out]
    t = threshold.thresholds_by_rule(calibration, calibration, 3.0, FALSE_ALARMS, of_these)
    scores, _ = scoring.score_features(fitted, new, progress=False)
    alarms = threshold.predict(scores, t["conformal"] or np.inf)
    return {
        "seconds": seconds,
        "auroc": image_auroc(labels, scores) or np.nan,
        "false_alarm_rate": float(alarms[labels == 0].mean()),
        "miss_rate": float((~alarms[labels == 1]).mean()),
    }


def rows(rounds: pd.DataFrame, details: dict) -> list[Row]:
    """What was promised, how it was kept, and how much it moves."""
    made = []
    for detector, of_it in rounds.groupby("detector", sort=False):
        by_way = {way: part.reset_index() for way, part in of_it.groupby("way")}
        ratio = median((by_way["cross"]["seconds"] / by_way["split"]["seconds"]).to_numpy())
        made.append(Row("promise", f"{detector}: fit, cross / split", ratio, at_most=2.0))
        for way, part in by_way.items():
            said = {
                name: spread(part[name].to_numpy())
                for name in ("auroc", "false_alarm_rate", "miss_rate", "seconds")
            }
            deviation = float(np.std(part["miss_rate"], ddof=1)) if len(part) > 1 else 0.0
            made += [
                Row(
                    "promise",
                    f"{detector}, {way}: false alarms",
                    float(part["false_alarm_rate"].mean()),
                    "",
                    note=f"promised {FALSE_ALARMS:g}; AUROC {part['auroc'].mean():.3f}",
                    details=details | said | {"rounds": part.to_dict("records")},
                ),
                Row(
                    "promise",
                    f"{detector}, {way}: misses",
                    float(part["miss_rate"].mean()),
                    "",
                    note=f"standard deviation over seeds {deviation:.3f}, "
                    f"{part['miss_rate'].min():.3f} to {part['miss_rate'].max():.3f}",
                ),
            ]
    return made
