"""The notebooks' parameters: which there are, and what a command line says about them.

The cell tagged `parameters` at the top of each notebook is the one place for parameters and their
default values. Which values make sense, the stages check themselves; here it is checked once more,
since a batch should not find out after an hour.
"""

import ast
import os
from functools import cache
from math import inf
from typing import Any

import nbformat

from texad.errors import DataError, check_choice, check_range, did_you_mean
from texad.io.paths import notebooks_folder
from texad.model.registry import CALIBRATIONS, DETECTORS
from texad.model.scoring import REDUCTIONS
from texad.model.threshold import RULES
from texad.runs.run_folder import STAGES, STUDIES

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
    notebook = nbformat.read(notebooks_folder() / f"{stage}.ipynb", as_version=4)
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    return {
        ast.unparse(target): ast.literal_eval(node.value)
        for node in ast.parse(cell.source).body
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
    what, default = f"parameter {name}", f"default {known[name]}"
    kind: type = (
        bool if known[name] is None else type(known[name])
    )  # None: as the detector wants it
    try:
        value = {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        raise DataError(
            f"{what} must be of type {kind.__name__} ({default}), not {text!r}"
        ) from None
    is_table = name == "groups" and text.lower().endswith(".csv")
    if (is_table or name == "region") and os.path.exists(text):
        value = os.path.abspath(text)  # notebooks run in another folder
    if name in CHOICES:
        check_choice(what, text, CHOICES[name], hint=default, error=DataError)
    if kind in (int, float):
        check_range(what, value, **RANGES.get(name, {"at_least": 1}), hint=default, error=DataError)
    return value
