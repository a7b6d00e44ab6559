"""Sweeps: several seeds and several values of parameters, every combination a run of its own.

How much of a result is the method, and how much is chance? A sweep over seeds says it; one over a
parameter says what the parameter does. One seed and one value of each make a sweep of one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import pandas as pd

from texad.batch.notebooks import COLUMNS, MEASURES


@dataclass(frozen=True)
class Setting:
    """A seed and parameters that categories are run with.

    Attributes
    ----------
    seed : int
    parameters : dict of str to object
        Parameters of the notebooks, with their types.
    swept : dict of str to object
        Those of the seed and the parameters that have several values in the sweep.
    """

    seed: int
    parameters: dict[str, Any]
    swept: dict[str, Any]

    @property
    def folder(self) -> str:
        """Name of its folder, for instance "seed=1,bottleneck=64"; empty in a sweep of one."""
        return ",".join(f"{name}={value}" for name, value in self.swept.items())


def settings(seeds: Sequence[int], values: dict[str, list[Any]]) -> list[Setting]:
    """All combinations of seeds and values.

    Parameters
    ----------
    seeds : sequence of int
    values : dict of str to list
        As `texad.runs.parameters.parse_values` returns them.

    Returns
    -------
    list of Setting
        The last parameter changes fastest.
    """
    swept = [name for name, several in {"seed": seeds, **values}.items() if len(several) > 1]
    found = []
    for seed, *chosen in product(seeds, *values.values()):
        parameters = dict(zip(values, chosen, strict=True))
        given = {"seed": seed, **parameters}
        found.append(Setting(seed, parameters, {name: given[name] for name in swept}))
    return found


def table(rows: list[dict]) -> str:
    """The rows of `texad.batch.batch.run` as a table for the terminal.

    Of a sweep, it has for each category and each value of the parameters the mean over the seeds,
    and in brackets the lowest and the highest value.
    """
    frame = pd.DataFrame(rows)
    if "setting" not in frame:
        formats: dict[Any, Callable] = dict.fromkeys(MEASURES, "{:.3f}".format)
        formats["seconds"] = "{:.1f}".format
        return frame[list(COLUMNS[:-1])].to_string(index=False, na_rep="-", formatters=formats)
    swept = [name for name in frame.columns if name not in ("setting", "seed", *COLUMNS)]
    each = frame.assign(runs=frame["error"].isna()).groupby(
        [*swept, "category"], sort=False, as_index=False
    )
    return each.agg({"runs": "sum"} | dict.fromkeys(MEASURES, _spread)).to_string(index=False)


def _spread(values: pd.Series) -> str:
    """Mean, lowest and highest value of the runs that came to their end."""
    known = values.dropna()
    if known.empty:
        return "-"
    ends = f" ({known.min():.3f} to {known.max():.3f})" if len(known) > 1 else ""
    return f"{known.mean():.3f}{ends}"
