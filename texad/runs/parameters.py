"""The notebooks' parameters: which there are, and what a command line says about them.

The cell tagged `parameters` at the top of each notebook is the one place for parameters and their
default values. Which values make sense, the stages check themselves; here it is checked once more,
since a batch should not find out after an hour, and since papermill passes `01` as the number 1.
"""

import ast
import os
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from math import inf
from typing import Any

from texad.errors import DataError, check_choice, check_range, did_you_mean
from texad.io.json_files import read_json
from texad.io.paths import notebooks_folder
from texad.model.registry import CALIBRATIONS, DETECTORS
from texad.model.scoring import REDUCTIONS
from texad.model.threshold import RULES

STAGES = (
    "01_preprocessing",
    "02_feature_extraction",
    "03_autoencoder_training",
    "04_scoring",
    "05_evaluation",
)
STUDIES = (
    "06_comparison",
    "07_ablations",
    "08_extended_detector",
    "09_your_own_textures",
)  # they look at a finished run, and change nothing in it
COMMON = ("dataset", "category", "weights", "runs", "seed")  # the batch itself fills them in
CHOICES = {
    "calibration": CALIBRATIONS,
    "detector": tuple(DETECTORS),
    "reduction": ("auto", *REDUCTIONS),
    "rule": ("auto", *RULES),
}
RANGES: dict[str, dict[str, Any]] = {  # as for `check_range`; every other number counts something
    "image_size": {"at_least": 16, "multiple_of": 16},
    "calibration_fraction": {"at_least": 0, "below": 1},
    "white": {"at_least": 0, "at_most": 65535},
    "unreadable_limit": {"at_least": 0, "at_most": 1},
    "learning_rate": {"above": 0, "below": inf},
    "validation_fraction": {"at_least": 0, "below": 1},
    "n_sigma": {"above": -inf, "below": inf},
    "false_alarms": {"above": 0, "below": 1},
    "defective_share": {"above": 0, "below": 1},
    "cost_of_false_alarm": {"at_least": 0, "below": inf},
    "cost_of_miss": {"at_least": 0, "below": inf},
}


@cache
def defaults(stage: str) -> dict[str, Any]:
    """Parameters of a notebook and their default values, read from its cell `parameters`."""
    cells = read_json(notebooks_folder() / f"{stage}.ipynb")["cells"]
    (cell,) = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    return {
        ast.unparse(target): ast.literal_eval(node.value)
        for node in ast.parse("".join(cell["source"])).body
        if isinstance(node, ast.Assign)
        for target in node.targets
    }


def parse_values(typed: dict[str, str]) -> dict[str, list[Any]]:
    """Check parameters typed on a command line, and give them the types of the notebooks'.

    Parameters
    ----------
    typed : dict of str to str
        A parameter of chapters 1 to 5 may have several values, with commas between; in `groups`,
        in `region` and in that of a study, a comma belongs to the value.

    Returns
    -------
    dict of str to list of object
        Each value once, in the order given.

    Raises
    ------
    ValueError
        If no notebook has such a parameter, or a value is of another type than the default, or out
        of range.

    Examples
    --------
    >>> parse_values({"bottleneck": "64, 256", "normalize": "true"})
    {'bottleneck': [64, 256], 'normalize': [True]}
    """
    swept = {name for stage in STAGES for name in defaults(stage)} - {"groups", "region"}
    texts = {name: text.split(",") if name in swept else [text] for name, text in typed.items()}
    return {
        name: list(dict.fromkeys(_parse(name, part.strip()) for part in parts))
        for name, parts in texts.items()
    }


def _parse(name: str, text: str) -> Any:
    known = {
        name: value
        for stage in STAGES + STUDIES
        for name, value in defaults(stage).items()
        if name not in COMMON
    }
    if name in COMMON:
        raise DataError(
            f"parameter {name} has an option of its own: see python -m texad run --help"
        )
    if name not in known:
        raise DataError(
            f"no notebook has a parameter {name}{did_you_mean(name, known)}: there are "
            f"{', '.join(sorted(known))}"
        )
    kind = _kind(known[name])
    value: Any = text
    with suppress(KeyError, ValueError):  # then it stays text, which is refused below
        value = {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
    is_table = name == "groups" and text.lower().endswith(".csv")
    if (is_table or name == "region") and os.path.exists(text):
        value = os.path.abspath(text)  # notebooks run in another folder
    _check(name, value, known[name])
    return value


def _kind(default: Any) -> type:
    return bool if default is None else type(default)  # None: as the detector wants it


def check_values(stage: str, given: Mapping[str, Any]) -> None:
    """Check the values of parameters of a notebook, whoever has given them.

    Parameters
    ----------
    stage : str
        The notebook.
    given : dict of str to object
        Other names than those of its parameters are passed over.

    Raises
    ------
    DataError
        A ValueError: a value is of another type than the default, or out of range.

    Examples
    --------
    >>> check_values("01_preprocessing", {"image_size": 224.0})
    Traceback (most recent call last):
    texad.errors.DataError: parameter image_size must be of type int (default 224), not 224.0
    """
    with suppress(FileNotFoundError):  # the package was installed without the notebooks
        for name, default in defaults(stage).items():
            if name in given:
                _check(name, given[name], default)


def _check(name: str, value: Any, default: Any) -> None:
    what, kind = f"parameter {name}", _kind(default)
    hint = "default empty" if default == "" else f"default {default}"
    fits = isinstance(value, (int, float) if kind is float else kind)
    if (kind is not bool and isinstance(value, bool)) or not (fits or value is default):
        text = "; papermill leaves it text by -r instead of -p" if kind is str else ""
        raise DataError(f"{what} must be of type {kind.__name__} ({hint}), not {value!r}{text}")
    if name in CHOICES:
        check_choice(what, value, CHOICES[name], hint=hint, error=DataError)
    if kind in (int, float) and name not in COMMON:
        check_range(what, value, **RANGES.get(name, {"at_least": 1}), hint=hint, error=DataError)
