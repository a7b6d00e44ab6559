"""JSON files that are whole: `run.json`, `metrics.json` and the summaries.

A file that a person, a full disk or a broken copy has changed is not guessed at: reading it is one error that names the file.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from texad.io.atomic import replacing
from texad.io.images import printable

NUMBER = (int, float)
MEASURED = (int, float, type(None))  # None where the system did not say
RECORD = {"dataset": str, "category": str, "versions": dict, "stages": dict, "data": dict, "weights": dict, "threshold": NUMBER, "thresholds": dict,
          "rule": str, "alpha": NUMBER}  # fmt: skip
DATA = {"folder": str, "fingerprint": str, "n_train": int, "n_calibration": int, "n_test": int, "unreadable": list}
LEFT_OUT = {"path": str, "reason": str}
WEIGHTS = {"name": str, "sha256": str}
STAGE = {"seconds": NUMBER, "parameters": dict, "files": dict, "peak_mb": MEASURED, "notebook_seconds": MEASURED, "threads": MEASURED, "cores": MEASURED}

METRICS = dict.fromkeys(("image_auroc", "pixel_auroc", "accuracy", "precision", "recall", "f1"), MEASURED) | {
    "threshold": NUMBER, "confusion": dict, "auroc_by_defect": dict, "weights": dict,
}  # fmt: skip
CONFUSION = dict.fromkeys(("tn", "fp", "fn", "tp"), int)


class RunError(ValueError):
    """Something is missing or wrong in a way that the user can mend; notebooks show it as one line."""

    def _render_traceback_(self) -> list[str]:
        return [f"RunError: {self}"]


class DamagedError(RunError):
    """A file is not what the package wrote there."""


def read_json(file: Path) -> dict:
    """Read a JSON file that holds an object; a missing one reads as empty.

    Raises
    ------
    DamagedError
        If the file is no JSON, or another kind of JSON: a list, a NaN or a number too large to compute with.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"), parse_constant=_finite, parse_float=_finite, parse_int=_whole)
        json.dumps(content, ensure_ascii=False).encode()  # half a character, which JSON can name and no file can hold, is a ValueError
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError, IsADirectoryError) as error:
        raise _damaged(file, str(error)) from None
    if not isinstance(content, dict):
        raise _damaged(file, f"it holds a {type(content).__name__} instead of an object")
    return content


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
        _check(file, "data, unreadable", entry if isinstance(entry, dict) else {}, LEFT_OUT, *LEFT_OUT)
    _check(file, "weights", record.get("weights"), WEIGHTS, *WEIGHTS)
    for stage, entry in record.get("stages", {}).items():
        _check(file, f"stages: {stage!r}", entry if isinstance(entry, dict) else {}, STAGE, "seconds")
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
    _check(file, "auroc_by_defect", metrics["auroc_by_defect"], dict.fromkeys(metrics["auroc_by_defect"], MEASURED))
    return metrics


def write_json(file: Path, content: dict) -> None:
    """Write a JSON file whole or not at all; NaN is refused, since JSON has no word for it."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    with replacing(file) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _check(file: Path, where: str, part: dict | None, kinds: Mapping[str, Any], *required: str) -> None:
    """Raise a DamagedError that names the first entry of another kind, or a required one that is missing. A part that is not there is in order."""
    if part is None:
        return
    for name, kind in kinds.items():
        if not (isinstance(part[name], kind) if name in part else name not in required):
            raise _damaged(file, f"{where and where + ', '}{printable(name)} is {_kind(part, name)}")


def _kind(part: dict, name: str) -> str:
    return f"of the wrong kind, {type(part[name]).__name__}" if name in part else "missing"


def _damaged(file: Path, reason: str) -> DamagedError:
    return DamagedError(f"{file} is damaged ({reason}); delete it and run the stage again")


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text} is no number to compute with")
    return number


def _whole(text: str) -> int:
    if len(text) > 18:  # what fits into 64 bits
        raise ValueError(f"a number of {len(text)} digits is none to compute with")
    return int(text)
