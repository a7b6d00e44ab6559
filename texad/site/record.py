"""A record of runs on real surfaces, for copies of the book that are made without them.

Real data sets are not part of the project. The command

    python -m texad record RUNS [RUNS ...]

reads finished runs of real surfaces and writes `book/real_surfaces.json`: what they found, and where their numbers come from. It holds
names and never paths, so that it reads the same on every machine. `texad.site.real_surfaces` makes a page of it.
"""

import csv
import shlex
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from texad import __version__
from texad.batch.parameters import COMMON, defaults
from texad.errors import RunError
from texad.io.json_files import read_json, write_json
from texad.io.paths import notebooks_folder
from texad.model.autoencoder import DETECTORS
from texad.model.scoring import RULES
from texad.runs.run_folder import STAGES, STUDIES, FinishedRun

FILE = "real_surfaces.json"
NUMBERS = ("image_auroc", "average_precision", "pixel_auroc", "aupro", "f1", "f1_max")
DECISIONS = ("false_alarm_rate", "false_alarm_interval", "miss_rate", "miss_interval", "confusion")

# -- what a record looks like ----------------------------------------------------------------------


def _object(properties: dict) -> dict:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


_NAME = {"type": "string", "pattern": r"\A[^/]+\Z"}  # a path would have a slash
_SHA256 = {"type": "string", "pattern": r"\A[0-9a-f]{64}\Z"}
_COUNT = {"type": "integer", "minimum": 0}
_SHARE = {"type": ["number", "null"], "minimum": 0, "maximum": 1}
_INTERVAL = {
    "type": ["array", "null"],
    "items": {"type": "number", "minimum": 0, "maximum": 1},
    "minItems": 2,
    "maxItems": 2,
}
_CONFUSION = _object(dict.fromkeys(("tn", "fp", "fn", "tp"), _COUNT))
_DECISIONS = dict(zip(DECISIONS, (_SHARE, _INTERVAL, _SHARE, _INTERVAL, _CONFUSION), strict=True))
_RULE = {"anyOf": [{"type": "null"}, _object({"threshold": {"type": "number"}, **_DECISIONS})]}
_METRICS = {
    **dict.fromkeys(NUMBERS, _SHARE),
    "image_auroc_interval": _INTERVAL,
    **_DECISIONS,
    "auroc_by_defect": {"type": "object", "propertyNames": _NAME, "additionalProperties": _SHARE},
    "decisions_by_rule": _object(dict.fromkeys(RULES, _RULE)),
}
_COMPARED = {
    "type": "object",
    "properties": {
        "category": _NAME,
        "method": _NAME,
        **dict.fromkeys(("auroc", "low", "high", "aupro", "false_alarm_rate"), _SHARE),
    },
    "required": [
        "category",
        "method",
        "auroc",
        "low",
        "high",
        "aupro",
        "false_alarm_rate",
        "fit_seconds",
        "megabytes",
    ],
    "additionalProperties": {"type": ["number", "null"]},
}
_RUN = {
    "dataset": _NAME,
    "category": _NAME,
    "n_train": _COUNT,
    "n_calibration": _COUNT,
    "n_test": _COUNT,
    "data_sha256": _SHA256,
    "weights": _object({"name": _NAME, "sha256": _SHA256}),
    "detector": {"enum": list(DETECTORS)},
    "seed": {"type": "integer"},
    "rule": {"enum": list(RULES)},
    "false_alarms": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    "parameters": {
        "type": "object",
        "additionalProperties": {
            "type": ["number", "boolean", "string"],
            "pattern": _NAME["pattern"],
        },
    },
    "command": {"type": "string", "pattern": r"\Apython -m texad run [^/]+\Z"},
    "versions": _object({"texad": _NAME, "python": _NAME, "torch": _NAME}),
    "metrics": _object(_METRICS),
    "comparison": {"type": "array", "items": _COMPARED},  # of chapter 6, if it ran
}
SCHEMA = _object(
    {
        "date": {"type": "string", "pattern": r"\A\d{4}-\d\d-\d\d\Z"},  # of the recording, in UTC
        "texad": _NAME,  # that recorded
        "runs": {"type": "array", "items": _object(_RUN), "minItems": 1},
    }
)


def check(content: dict, file: str | Path = FILE) -> None:
    """Check a record against `SCHEMA`.

    Parameters
    ----------
    content : dict
    file : str or Path
        Where it stands, for the message.

    Raises
    ------
    RunError
        If it does not fit: where, and why.
    """
    if error := best_match(Draft202012Validator(SCHEMA).iter_errors(content)):
        reason = error.message if len(error.message) < 200 else f"{error.message[:200]} …"
        raise RunError(
            f"{file} does not fit its schema at {error.json_path}: {reason}; write it again with `python -m texad record RUNS`"
        )


# -- recording -------------------------------------------------------------------------------------


def record(folders: Sequence[str | Path], file: str | Path | None = None) -> Path:
    """Write what finished runs of real surfaces found.

    Parameters
    ----------
    folders : sequence of str or Path
        Each a folder that `texad run --out` filled; one for each seed and detector.
    file : Path, optional
        By default book/real_surfaces.json.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    RunError
        If there is no folder, or none with a finished run of real surfaces; if runs cannot be averaged; or if a run is of an older
        version of the project, whose numbers are not all there.
    """
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise RunError(
                f"{folder} is no folder: name one that `python -m texad run --out` has filled"
            )
    content = collect(folders)
    if not content["runs"]:
        raise RunError(
            f"no finished run of real surfaces in {', '.join(map(str, folders))}: make one with "
            "`python -m texad run --dataset mvtec`, or with your own folder as the data set (the synthetic textures are not real)"
        )
    try:
        check(content)
    except RunError as error:
        raise RunError(f"a run is damaged, or of another version: run it again ({error})") from None
    file = Path(file) if file else notebooks_folder().parent / "book" / FILE
    write_json(file, content)
    return file


def collect(folders: Sequence[str | Path]) -> dict:
    """What `record` writes, with no run in it if there is none of real surfaces.

    Raises
    ------
    RunError
        If a run is damaged, or runs of a category cannot be averaged, since they are of different data, weights or parameters, or of the
        same seed.
    """
    found = {}
    for folder in dict.fromkeys(Path(folder).resolve() for folder in folders):
        for file in sorted(folder.glob("*/*/run.json")):
            run = FinishedRun(file.parent)
            if run.dataset != "synthetic" and run.is_finished(STAGES[-1]):
                try:
                    found[run.folder] = _entry(run)
                except (
                    LookupError,
                    TypeError,
                    AttributeError,
                ) as error:  # a part is missing, or of another kind
                    raise RunError(
                        f"{run.folder} is damaged, or of another version: run it again ({type(error).__name__}: {error})"
                    ) from None
    _refuse_mixtures(found)
    entries = sorted(
        found.values(),
        key=lambda run: (
            run["dataset"],
            run["category"],
            is_random(run),
            DETECTORS.index(run["detector"]),
            run["seed"],
        ),
    )
    return {"date": f"{datetime.now(timezone.utc):%Y-%m-%d}", "texad": __version__, "runs": entries}


def _entry(run: FinishedRun) -> dict:
    """One run of the record."""
    content, metrics = run.read(), read_json(run.folder / "metrics.json")
    stages, data, weights = content["stages"], content["data"], content["weights"]
    used = {name: value for stage in STAGES for name, value in stages[stage]["parameters"].items()}
    usual = {
        name: value
        for stage in STAGES
        for name, value in defaults(stage).items()
        if name not in COMMON
    }
    parameters = {
        name: used[name] for name, value in usual.items() if used.get(name, value) != value
    }
    detector, seed = used.get("detector", DETECTORS[0]), stages[STAGES[2]]["parameters"]["seed"]
    if detector not in DETECTORS or not isinstance(seed, int):
        raise TypeError(f"the detector is {detector!r} and the seed {seed!r}")
    compared = run.folder / "comparison.csv"
    entry = {
        "dataset": run.dataset,
        "category": run.category,
        **{name: data.get(name, 0) for name in ("n_train", "n_calibration", "n_test")},
        "data_sha256": data["fingerprint"],
        "weights": {"name": Path(weights["name"]).name, "sha256": weights["sha256"]},
        "detector": detector,
        "seed": seed,
        "rule": content.get("rule"),
        "false_alarms": content.get("false_alarms"),
        "parameters": parameters,
        "versions": {name: content["versions"][name] for name in ("texad", "python", "torch")},
        "metrics": {name: metrics.get(name) for name in _METRICS},
        "comparison": _read_comparison(compared)
        if run.is_finished(STUDIES[0]) and compared.is_file()
        else [],
    }
    for rule in (entry["metrics"]["decisions_by_rule"] or {}).values():
        for name in set(rule or {}) - {"threshold", *DECISIONS}:
            del rule[name]  # accuracy and others, which the counts tell
    entry["command"] = _command(entry, any(study in stages for study in STUDIES))
    return _rounded(entry)


def _command(entry: dict, with_studies: bool) -> str:
    """What to type for this run; a folder and a file of weights are everywhere somewhere else."""
    dataset = "mvtec" if entry["dataset"] == "mvtec" else "<folder>"
    weights = (
        entry["weights"]["name"]
        if entry["weights"]["name"] in ("imagenet", "random")
        else "<weights>"
    )
    words = [
        "--category",
        shlex.quote(entry["category"]),
        "--weights",
        weights,
        "--seed",
        str(entry["seed"]),
    ]
    for name, value in entry["parameters"].items():
        words += ["-p", name, shlex.quote(str(value))]
    return " ".join(
        ["python -m texad run --dataset", dataset, *words, *(["--studies"] if with_studies else [])]
    )


def _read_comparison(file: Path) -> list[dict]:
    """The rows of comparison.csv; an empty field is not known."""
    with file.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    return [
        {
            name: text if name in ("category", "method") else float(text) if text else None
            for name, text in row.items()
        }
        for row in rows
    ]


def is_random(run: dict) -> bool:
    """Was this run of a record made with random weights? These may stand beside those of trained ones."""
    return bool(run["weights"]["name"] == "random")


def _refuse_mixtures(found: dict[Path, dict]) -> None:
    """A mean over seeds is one only if nothing but the seed differs."""
    first: dict[tuple, tuple[Path, object]] = {}
    for folder, run in found.items():
        category = (run["dataset"], run["category"])
        kind = (*category, is_random(run), run["detector"])
        for key, name, same in (
            (category, "data", run["data_sha256"]),
            (
                (*category, is_random(run)),
                "weights",
                "random" if is_random(run) else run["weights"]["sha256"],
            ),  # random ones are of the seed
            (kind, "parameters", run["parameters"]),
        ):
            before, value = first.setdefault((key, name), (folder, same))
            if value != same:
                raise RunError(
                    f"{folder} and {before} are of different {name}: record runs that differ in seed and detector alone, or in random and trained weights"
                )
        before, _ = first.setdefault((*kind, run["seed"]), (folder, None))
        if before != folder:
            raise RunError(
                f"{folder} and {before} are of the same seed ({run['seed']}) and detector ({run['detector']}): leave out one"
            )


def _rounded(value: Any) -> Any:
    """Six digits are enough, and keep the file small."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    return [_rounded(part) for part in value] if isinstance(value, list) else value
