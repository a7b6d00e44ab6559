"""Fuzzing of run.json and metrics.json: they are read, or one RunError names the file.

Not a test that pytest collects, since it never ends by itself. Half of the time the bytes of
atheris are the file; half of the time they choose parts of a good record, and JSON values to put
there instead. It wants Linux:

    .venv/bin/pip install atheris
    .venv/bin/python tests/fuzz_records.py -max_total_time=600 -len_control=0 corpus/

`corpus/` is an empty folder of your own. Without `-len_control=0` the first minutes go to inputs
too short to change much. What fails is written to `crash-…` in the current folder: give it as the
argument to see it again, and make it a case of `test_properties.py`.
"""

import copy
import json
import os
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(
    include=["texad.runs.run_folder", "texad.batch.notebooks", "texad.site", "json"]
):
    from conftest import write_category

    from texad.batch import notebooks as jobs
    from texad.data import datasets
    from texad.errors import RunError
    from texad.io.json_files import read_json
    from texad.runs.run_folder import STAGES, STUDIES, FinishedRun, Run
    from texad.site import cluster_page, pages, record

FOLDER = Path(tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
CATEGORY = write_category(
    FOLDER / "surfaces" / "steel", n_train=2, n_good=1, n_defective=1, size=48
)
RUN = Run(CATEGORY.parent, "steel", FOLDER / "runs")
DATA = datasets.load_category(CATEGORY.parent, "steel")
SUMMARY = {"dataset": "surfaces", "weights": {"name": "random", "sha256": "0" * 64}, "seed": 0}


def good_run() -> dict:
    """run.json as a finished batch leaves it."""
    RUN.write_table("scores.csv", RUN.write_images(DATA))
    for stage in STAGES + STUDIES:
        RUN.start(stage, seed=0).finish()
    RUN.write(weights=SUMMARY["weights"], threshold=0.5, rule="sigma", false_alarms=0.05)
    content = RUN.read()
    for stage, entry in content["stages"].items():
        entry |= {
            "code": jobs.code_fingerprint(stage),
            "notebook_seconds": 1.5,
            "threads": 1,
            "cores": 2,
        }
    return content


METRICS = {
    "image_auroc": 0.9,
    "image_auroc_interval": [0.8, 1.0],
    "pixel_auroc": None,
    "aupro": 0.5,
    "threshold": 0.5,
    "rule": "sigma",
    "accuracy": 0.9,
    "precision": 0.8,
    "recall": 0.7,
    "f1": 0.75,
    "confusion": {"tn": 1, "fp": 0, "fn": 1, "tp": 0},
    "auroc_by_defect": {"spot": 0.5},
    "weights": SUMMARY["weights"],
    "n_train": 2,
    "n_calibration": 0,
    "n_test": 2,
    "decisions_by_rule": {"sigma": {"threshold": 0.5}},
}
GOOD = {"run.json": good_run(), "metrics.json": METRICS}


def use_run() -> list:
    """All that is done with run.json."""
    run, finished = RUN, FinishedRun(RUN.folder)
    fingerprint = datasets.fingerprint(DATA)
    return [
        run.read,
        run.finished,
        run.__repr__,
        run._repr_html_,
        lambda: run.parameter("seed"),
        lambda: run.data_path("a.png"),
        lambda: cluster_page.measure([finished]),
        lambda: record.collect([FOLDER / "runs"]),
        lambda: jobs.is_current(run, STAGES[4], {"seed": 0}, DATA, fingerprint),
        lambda: jobs.is_current(run, STUDIES[0], {}, DATA, fingerprint),
        lambda: run.start(STUDIES[1], seed=1).finish(),
        lambda: run.start(STAGES[3], weights="random").finish(),
        lambda: run.write(threshold=1.0),
    ]


def use_metrics() -> list:
    """All that is done with metrics.json."""
    finished = FinishedRun(RUN.folder)
    return [
        lambda: read_json(RUN.folder / "metrics.json"),
        lambda: pages._results_page(finished, "steel", SUMMARY),
        lambda: record.collect([FOLDER / "runs"]),
    ]


USES = {"run.json": use_run, "metrics.json": use_metrics}


def check(data: bytes) -> None:
    """Raise an error if a file of these bytes is not treated as promised."""
    source = atheris.FuzzedDataProvider(data)
    name = source.PickValueInList(list(GOOD))
    raw = (
        source.ConsumeBytes(sys.maxsize)
        if source.ConsumeBool()
        else json.dumps(changed(source, GOOD[name])).encode()
    )
    for file, content in GOOD.items():
        (RUN.folder / file).write_text(json.dumps(content), encoding="utf-8")
    for use in USES[name]():
        (RUN.folder / name).write_bytes(raw)  # the use before may have written it
        try:
            use()
        except RunError as error:
            assert str(error).isprintable(), repr(error)


def changed(source: atheris.FuzzedDataProvider, good: object) -> object:
    """A record with up to three of its parts removed, or with any JSON value in their place."""
    content = {"": copy.deepcopy(good)}
    for _ in range(source.ConsumeIntInRange(1, 3)):
        place, key = content, ""
        while (
            isinstance(place[key], (dict, list))
            and place[key]
            and (place is content or source.ConsumeIntInRange(0, 3))
        ):
            place = place[key]
            key = source.PickValueInList(
                list(place) if isinstance(place, dict) else list(range(len(place)))
            )
            if source.ConsumeIntInRange(0, 15) == 0:
                break
        if source.ConsumeIntInRange(0, 3) == 0 and place is not content:
            del place[key]
        else:
            place[key] = value(source, 3)
    return content.get("")


def value(source: atheris.FuzzedDataProvider, depth: int) -> object:
    """Any JSON value, also those that only Python calls JSON."""
    kind = source.ConsumeIntInRange(0, 7 if depth else 5)
    if kind == 0:
        return source.PickValueInList([None, True, False])
    if kind == 1:
        return source.ConsumeInt(9)
    if kind == 2:
        return source.ConsumeFloat()
    if kind <= 4:
        return source.ConsumeUnicode(12)
    if kind == 5:
        return source.PickValueInList([[], {}, "", 0, -1, 10**400, STAGES[0], "random"])
    if kind == 6:
        return [value(source, depth - 1) for _ in range(source.ConsumeIntInRange(0, 3))]
    return {
        source.ConsumeUnicode(6): value(source, depth - 1)
        for _ in range(source.ConsumeIntInRange(0, 3))
    }


def main() -> None:
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
