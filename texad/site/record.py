"""A record of runs on real surfaces, for copies of the book that are made without them.

Real data sets are not part of the project. The command

    python -m texad record RUNS [RUNS ...]

reads finished runs of real surfaces and writes `book/real_surfaces.json`: what they found, and
where their numbers come from. It holds names and never paths, so that it reads the same on every
machine; `real_surfaces.schema.json` describes it. `texad.site.real_surfaces` makes a page of it.

Results of a split that leaks are told from others by the entry `leak`, which is written by hand.
They stay in the record when it is written anew: what they show is the leak, whatever has become of
the detectors since.
"""

import json
import os
import shlex
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import pandas as pd
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from texad import __version__
from texad.errors import RunError
from texad.io.json_files import read_json, write_json
from texad.io.paths import notebooks_folder
from texad.model import weights
from texad.model.registry import DETECTORS
from texad.runs.parameters import COMMON, defaults
from texad.runs.run_folder import STAGES, STUDIES, FinishedRun

FILE = "real_surfaces.json"
SCHEMA = json.loads(Path(__file__).with_name("real_surfaces.schema.json").read_text("utf-8"))
METRICS = SCHEMA["$defs"]["metrics"]["properties"]
RANK = {"texad": 1, "random": 2}  # of kinds of weights; others come first
DECISIONS = SCHEMA["$defs"]["rule_metrics"]["properties"]


def check(content: dict, file: str | Path = FILE) -> None:
    """Check a record against `SCHEMA`.

    Parameters
    ----------
    content : dict
    file : str or Path
        Its name, for the message.

    Raises
    ------
    RunError
        If it does not fit: where, and why.
    """
    if error := best_match(Draft202012Validator(SCHEMA).iter_errors(content)):
        raise RunError(
            f"{file} does not fit its schema at {error.json_path}: {error.message[:200]}; "
            "write it again with `python -m texad record RUNS`"
        )


# -- recording -------------------------------------------------------------------------------------


def record(folders: Sequence[str | Path], file: str | Path | None = None) -> Path:
    """Write what finished runs of real surfaces found.

    Parameters
    ----------
    folders : sequence of str or Path
        Each a folder that `texad run --out` filled; one for each seed and detector.
    file : Path, optional
        By default book/real_surfaces.json. Its results of splits that leak are kept.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    RunError
        If there is no folder, or none with a finished run of real surfaces; if runs cannot be
        averaged; or if a run is of an older version of the project and lacks numbers.
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
            "`python -m texad run --dataset mvtec`, or with your own folder as the data set "
            "(the synthetic textures are not real)"
        )
    try:
        check(content)
    except RunError as error:
        raise RunError(f"a run is damaged, or of another version: run it again ({error})") from None
    file = Path(file) if file else notebooks_folder().parent / "book" / FILE
    content["runs"] += [run for run in read_json(file).get("runs", []) if "leak" in run]
    write_json(file, content)
    return file


def collect(folders: Sequence[str | Path]) -> dict:
    """Collect what `record` writes, with no run in it if there is none of real surfaces.

    Raises
    ------
    RunError
        If a run is damaged, or runs of a category cannot be averaged, since they are of different
        data, weights or parameters, or of the same seed.
    """
    found = {}
    for folder in dict.fromkeys(Path(folder).resolve() for folder in folders):
        for file in sorted(folder.glob("*/*/run.json")):
            run = FinishedRun(file.parent)
            if run.dataset != "synthetic" and run.is_finished(STAGES[-1]):
                try:
                    found[run.folder] = _entry(run)
                except (LookupError, TypeError, AttributeError) as error:
                    raise RunError(
                        f"{run.folder} is damaged, or of another version: run it again "
                        f"({type(error).__name__}: {error})"
                    ) from None
    _refuse_mixtures(found)
    entries = sorted(
        found.values(),
        key=lambda run: (
            run["dataset"],
            run["category"],
            RANK.get(kind(run), 0),
            kind(run),
            list(DETECTORS).index(run["detector"]),
            run["seed"],
        ),
    )
    return {"date": f"{datetime.now(timezone.utc):%Y-%m-%d}", "texad": __version__, "runs": entries}


def _entry(run: FinishedRun) -> dict:
    """One run of the record."""
    content, metrics = run.read(), read_json(run.folder / "metrics.json")
    stages, data, used_weights = content["stages"], content["data"], content["weights"]
    used = {name: value for stage in STAGES for name, value in stages[stage]["parameters"].items()}
    usual = {name: value for stage in STAGES for name, value in defaults(stage).items()}
    parameters = {
        name: Path(used[name]).name if os.path.isabs(str(used[name])) else used[name]
        for name, value in usual.items()
        if name not in COMMON and used.get(name, value) != value
    }
    detector = used.get("detector", "published")
    seed = stages[STAGES[2]]["parameters"]["seed"]
    if detector not in list(DETECTORS) or not isinstance(seed, int):
        raise TypeError(f"the detector is {detector!r} and the seed {seed!r}")
    compared = run.folder / "comparison.csv"
    entry = {
        "dataset": run.dataset,
        "category": run.category,
        **{name: data.get(name, 0) for name in ("n_train", "n_calibration", "n_test")},
        "data_sha256": data["fingerprint"],
        "weights": {"name": Path(used_weights["name"]).name, "sha256": used_weights["sha256"]},
        "detector": detector,
        "seed": seed,
        "rule": content.get("rule"),
        "false_alarms": content.get("false_alarms"),
        "parameters": parameters,
        "versions": {name: content["versions"][name] for name in ("texad", "python", "torch")},
        "metrics": {name: metrics.get(name) for name in METRICS},
        "comparison": [row for row in _read_comparison(compared) if row["category"] == run.category]
        if run.is_finished(STUDIES[0]) and compared.is_file()
        else [],
    }
    for rule in (entry["metrics"]["decisions_by_rule"] or {}).values():
        for name in (rule or {}).keys() - DECISIONS:
            del rule[name]  # accuracy and others, which the counts tell
    entry["command"] = _command(entry, any(study in stages for study in STUDIES))
    # six digits are enough, and keep the file small
    return json.loads(json.dumps(entry), parse_float=lambda text: float(f"{float(text):.6g}"))


def _command(entry: dict, with_studies: bool) -> str:
    """The command of this run; the data set and the weights are in other places everywhere."""
    dataset = "mvtec" if entry["dataset"] == "mvtec" else "<folder>"
    name = entry["weights"]["name"]
    name = name if name in weights.NAMES else "<weights>"
    parameters = [f" -p {name} {shlex.quote(str(v))}" for name, v in entry["parameters"].items()]
    return (
        f"python -m texad run --dataset {dataset} --category {shlex.quote(entry['category'])} "
        f"--weights {name} --seed {entry['seed']}{''.join(parameters)}"
        f"{' --studies' if with_studies else ''}"
    )


def _read_comparison(file: Path) -> list[dict]:
    """The rows of comparison.csv; an empty field is not known."""
    table = pd.read_csv(
        file, dtype={"category": str, "method": str}, keep_default_na=False, na_values=[""]
    )
    return json.loads(table.to_json(orient="records", double_precision=15))


def kind(run: dict) -> str:
    """Name the weights of a run of a record; those of several kinds may stand side by side."""
    return weights.kind(run["weights"]["name"], run["weights"]["sha256"])


def _refuse_mixtures(found: dict[Path, dict]) -> None:
    """A mean over seeds is one only if nothing but the seed differs."""
    first: dict[tuple, tuple[Path, object]] = {}
    for folder, run in found.items():
        category, detector, seed = (run["dataset"], run["category"]), run["detector"], run["seed"]
        own = (*category, kind(run))
        # random weights are drawn from the seed
        sha256 = "random" if kind(run) == "random" else run["weights"]["sha256"]
        for words, key, value in (
            ("different data", category, run["data_sha256"]),
            ("different weights", own, sha256),
            ("different parameters", (*own, detector), run["parameters"]),
            (
                f"the same seed ({seed}) and detector ({detector})",
                (*own, detector, seed),
                folder,
            ),
        ):
            before, expected = first.setdefault((words, *key), (folder, value))
            if value != expected:
                raise RunError(
                    f"{folder} and {before} are of {words}: record runs that differ in seed and "
                    "detector alone, or in the kind of weights"
                )
