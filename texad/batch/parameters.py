"""The notebooks' parameters: which there are, and what a command line says about them.

The cell tagged `parameters` at the top of each notebook is the one place where parameters and their default values stand. Which values make
sense, the stages check themselves; here it is checked once more, since a batch should not find out after an hour.
"""

import ast
import difflib
import math
from functools import cache
from typing import Any

import nbformat

from texad.errors import DataError
from texad.io.paths import notebooks_folder
from texad.model.registry import DETECTORS
from texad.model.scoring import REDUCTIONS
from texad.model.threshold import RULES
from texad.runs.run_folder import STAGES, STUDIES

COMMON = (
    "dataset",
    "category",
    "weights",
    "runs",
    "seed",
)  # parameters that the batch itself fills in
CHOICES = {
    "detector": tuple(DETECTORS),
    "reduction": ("auto", *REDUCTIONS),
    "rule": ("auto", *RULES),
}
RANGES = {  # every other number counts something, and is at least 1
    "image_size": (lambda value: value >= 16 and value % 16 == 0, "a positive multiple of 16"),
    "calibration_fraction": (lambda value: 0 <= value < 1, "at least 0 and below 1"),
    "unreadable_limit": (lambda value: 0 <= value <= 1, "between 0 and 1"),
    "learning_rate": (lambda value: 0 < value < math.inf, "a positive number"),
    "validation_fraction": (lambda value: 0 < value < 1, "above 0 and below 1"),
    "n_sigma": (math.isfinite, "a finite number"),
    "false_alarms": (lambda value: 0 < value < 1, "above 0 and below 1"),
    "defective_share": (lambda value: 0 < value < 1, "above 0 and below 1"),
    "cost_of_false_alarm": (lambda value: 0 <= value < math.inf, "at least 0"),
    "cost_of_miss": (lambda value: 0 <= value < math.inf, "at least 0"),
}


@cache
def defaults(stage: str) -> dict[str, Any]:
    """The parameters of a notebook and their default values, read from its cell tagged `parameters`."""
    notebook = nbformat.read(notebooks_folder() / f"{stage}.ipynb", as_version=4)
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assignments = [node for node in ast.parse(cell.source).body if isinstance(node, ast.Assign)]
    return {
        target.id: ast.literal_eval(node.value)
        for node in assignments
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def parse_parameters(typed: dict[str, str]) -> dict[str, object]:
    """Check parameters typed on a command line against the notebooks', and give them their types.

    Parameters
    ----------
    typed : dict of str to str

    Returns
    -------
    dict of str to object

    Raises
    ------
    ValueError
        If no notebook has such a parameter, or the value is of another type than the default, or out of range.
    """
    known = {
        name: value
        for stage in STAGES + STUDIES
        for name, value in defaults(stage).items()
        if name not in COMMON
    }
    return {name: _typed(name, text, known) for name, text in typed.items()}


def parse_values(typed: dict[str, str]) -> dict[str, list[object]]:
    """As `parse_parameters`, but a parameter of chapters 1 to 5 may have several values, with commas between.

    Parameters
    ----------
    typed : dict of str to str

    Returns
    -------
    dict of str to list of object
        Each value once, in the order given.

    Raises
    ------
    ValueError
        As `parse_parameters`.
    """
    many = {
        name for stage in STAGES for name in defaults(stage)
    }  # a study's own value may have a comma in it
    texts = {name: text.split(",") if name in many else [text] for name, text in typed.items()}
    return {
        name: list(dict.fromkeys(parse_parameters({name: part.strip()})[name] for part in parts))
        for name, parts in texts.items()
    }


def _typed(name: str, text: str, known: dict[str, Any]) -> object:
    if name in COMMON:
        raise DataError(
            f"parameter {name} has an option of its own: see python -m texad run --help"
        )
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise DataError(
            f"no notebook has a parameter {name}: {hint}there are {', '.join(sorted(known))}"
        )
    kind = type(known[name])
    try:
        value = {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        raise DataError(
            f"parameter {name} must be of type {kind.__name__} (default {known[name]}), not {text!r}"
        ) from None
    _check(name, value, known[name])
    return value


def _check(name: str, value: Any, default: object) -> None:
    if name in CHOICES:
        near = difflib.get_close_matches(value, CHOICES[name], n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        is_in_range, words = value in CHOICES[name], f"one of {', '.join(CHOICES[name])}"
    else:
        in_range, words = RANGES.get(
            name, (lambda value: isinstance(value, (bool, str)) or value >= 1, "at least 1")
        )
        is_in_range, hint = in_range(value), ""
    if not is_in_range:
        raise DataError(
            f"parameter {name} must be {words} (default {default}), not {value!r}{hint}"
        )
