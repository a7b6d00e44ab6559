"""JSON files that are whole: `run.json`, `metrics.json` and the summaries.

A file that a person, a full disk or a broken copy has changed is not guessed at: reading it is one error that names the file.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from texad.errors import printable
from texad.io.json_files import damaged, read_json

NUMBER = (int, float)
MEASURED = (int, float, type(None))  # None where the system did not say
RECORD = {"dataset": str, "category": str, "versions": dict, "stages": dict, "data": dict, "weights": dict, "threshold": NUMBER, "thresholds": dict,
          "rule": str, "false_alarms": NUMBER}  # fmt: skip
DATA = {
    "folder": str,
    "fingerprint": str,
    "n_train": int,
    "n_calibration": int,
    "n_test": int,
    "unreadable": list,
}
LEFT_OUT = {"path": str, "reason": str}
WEIGHTS = {"name": str, "sha256": str}
STAGE = {
    "seconds": NUMBER,
    "parameters": dict,
    "files": dict,
    "peak_mb": MEASURED,
    "notebook_seconds": MEASURED,
    "threads": MEASURED,
    "cores": MEASURED,
}

METRICS = dict.fromkeys(("image_auroc", "pixel_auroc", "accuracy", "precision", "recall", "f1"), MEASURED) | {
    "threshold": NUMBER, "confusion": dict, "auroc_by_defect": dict, "weights": dict,
}  # fmt: skip
CONFUSION = dict.fromkeys(("tn", "fp", "fn", "tp"), int)


def read_record(file: Path) -> dict:
    """Read a run.json; a missing one reads as empty.

    Raises
    ------
    DamagedError
        As `read_json`, and if an entry is not of the kind that the package writes there.
    """
    record = read_json(file)
    _check(file, "", record, RECORD)
    _check(file, "data", record.get("data"), DATA, "n_train", "n_test")
    for entry in record.get("data", {}).get("unreadable", []):
        _check(
            file, "data, unreadable", entry if isinstance(entry, dict) else {}, LEFT_OUT, *LEFT_OUT
        )
    _check(file, "weights", record.get("weights"), WEIGHTS, *WEIGHTS)
    for stage, entry in record.get("stages", {}).items():
        _check(
            file, f"stages: {stage!r}", entry if isinstance(entry, dict) else {}, STAGE, "seconds"
        )
    return record


def read_metrics(file: Path) -> dict:
    """Read a metrics.json.

    Raises
    ------
    DamagedError
        As `read_json`, and if an entry that the book shows is missing, or not of the kind that the package writes there.
    """
    metrics = read_json(file)
    _check(file, "", metrics, METRICS, *METRICS)
    _check(file, "confusion", metrics["confusion"], CONFUSION, *CONFUSION)
    _check(file, "weights", metrics["weights"], WEIGHTS, *WEIGHTS)
    _check(
        file,
        "auroc_by_defect",
        metrics["auroc_by_defect"],
        dict.fromkeys(metrics["auroc_by_defect"], MEASURED),
    )
    return metrics


def _check(
    file: Path, where: str, part: dict | None, kinds: Mapping[str, Any], *required: str
) -> None:
    """Raise a DamagedError that names the first entry of another kind, or a required one that is missing. A part that is not there is in order."""
    if part is None:
        return
    for name, kind in kinds.items():
        if not (isinstance(part[name], kind) if name in part else name not in required):
            raise damaged(file, f"{where and where + ', '}{printable(name)} is {_kind(part, name)}")


def _kind(part: dict, name: str) -> str:
    return f"of the wrong kind, {type(part[name]).__name__}" if name in part else "missing"
