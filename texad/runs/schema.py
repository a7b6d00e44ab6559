"""JSON files that are whole: `run.json` and `metrics.json`.

A file that a person, a full disk or a broken copy has changed is not guessed at: reading it is one
error that names the file.
"""

from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from texad.errors import printable
from texad.io.json_files import damaged, read_json


def _object(*required: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(required), "properties": properties}


TEXT, NUMBER, COUNT, OBJECT = ({"type": t} for t in ("string", "number", "integer", "object"))
MEASURED = {"type": ["number", "null"]}  # null where the system did not say
WEIGHTS = _object("name", "sha256", name=TEXT, sha256=TEXT)
PAIR = {"type": "array", "items": NUMBER, "minItems": 2, "maxItems": 2}
PLACES = _object("stride", "centre", stride={"type": "number", "exclusiveMinimum": 0}, centre=PAIR)
SIGHT = _object(
    *("size", "keep_aspect", "normalize"),
    size={"type": "integer", "minimum": 16, "multipleOf": 16},
    **dict.fromkeys(("keep_aspect", "normalize", "layer2"), {"type": "boolean"}),
    region=TEXT,
    white={"type": "integer", "minimum": 1, "maximum": 65535},
)
LEFT_OUT = _object("path", "reason", path=TEXT, reason=TEXT)
SPLITS = {f"n_{split}": COUNT for split in ("train", "calibration", "test")}
DATA = _object(
    *("n_train", "n_test"),
    folder=TEXT,
    fingerprint=TEXT,
    **SPLITS,
    groups=_object("source", source=TEXT, **SPLITS),
    unreadable={"type": "array", "items": LEFT_OUT},
)
STAGE = _object(
    "seconds",
    seconds=NUMBER,
    parameters=OBJECT,
    files=OBJECT,
    in_full={"type": "boolean"},
    **dict.fromkeys(("peak_mb", "notebook_seconds", "threads", "cores"), MEASURED),
)
RECORD = _object(
    **dict.fromkeys(("dataset", "category", "rule"), TEXT),
    **dict.fromkeys(("threshold", "false_alarms"), NUMBER),
    **dict.fromkeys(("versions", "thresholds"), OBJECT),
    stages={"type": "object", "additionalProperties": STAGE},
    data=DATA,
    weights=WEIGHTS,
    places=PLACES,
    sight=SIGHT,
)
RATES = ("image_auroc", "pixel_auroc", "accuracy", "precision", "recall", "f1")
CONFUSION = ("tn", "fp", "fn", "tp")
METRICS = _object(
    *(*RATES, "threshold", "confusion", "auroc_by_defect", "weights"),
    **dict.fromkeys(RATES, MEASURED),
    threshold=NUMBER,
    confusion=_object(*CONFUSION, **dict.fromkeys(CONFUSION, COUNT)),
    auroc_by_defect={"type": "object", "additionalProperties": MEASURED},
    weights=WEIGHTS,
)


def read(file: Path, schema: dict[str, Any]) -> dict:
    """Read a run.json or metrics.json.

    Parameters
    ----------
    file : Path
        A missing one reads as an empty object.
    schema : dict
        `RECORD` for run.json, `METRICS` for metrics.json.

    Raises
    ------
    DamagedError
        As `read_json`, and if an entry is missing, or not of the kind that the package writes
        there.
    """
    content = read_json(file)
    if error := best_match(Draft202012Validator(schema).iter_errors(content)):
        names = [printable(str(part)) for part in error.absolute_path]
        reason = f"is of the wrong kind, {type(error.instance).__name__}"
        if error.validator == "required":
            names += [next(name for name in error.validator_value if name not in error.instance)]
            reason = "is missing"
        raise damaged(file, f"{', '.join(names)} {reason}")
    return content
