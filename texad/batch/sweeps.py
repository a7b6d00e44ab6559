"""Sweeps: the same categories with several seeds and several values of parameters, every combination a run of its own.

How much of a result is the method, and how much is chance? A sweep over seeds says it; one over a parameter says what the parameter does.

    OUT/seed=0,bottleneck=64/     as `texad.batch.batch.run` leaves it: <data set>/<category>/, summary.csv, summary.json
    OUT/seed=1,bottleneck=64/     and so on; only what has several values is in the name
    OUT/sweep.csv                 a row for each combination and category
"""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from texad.batch import batch
from texad.batch.batch import Setting
from texad.batch.notebooks import COLUMNS, MEASURES
from texad.io.atomic import replacing
from texad.io.escape import for_spreadsheet


def settings(seeds: Sequence[int], values: dict[str, list[Any]]) -> list[Setting]:
    """All combinations of seeds and values.

    Parameters
    ----------
    seeds : sequence of int
    values : dict of str to list
        As `texad.batch.parameters.parse_values` returns them.

    Returns
    -------
    list of Setting
        The last parameter changes fastest. The folder of each is named by what has several values.
    """
    swept = [name for name, several in {"seed": seeds, **values}.items() if len(several) > 1]
    combinations = [
        dict(zip(("seed", *values), combination, strict=True))
        for combination in product(seeds, *values.values())
    ]
    return [
        Setting(
            each["seed"],
            {name: each[name] for name in values},
            ",".join(f"{name}={each[name]}" for name in swept),
        )
        for each in combinations
    ]


def run(
    seeds: Sequence[int],
    values: dict[str, list[Any]],
    dataset: str,
    category: str = "all",
    weights_name: str = "auto",
    out: str | Path = "runs",
    jobs: int | None = None,
    studies: bool = False,
    progress: bool = True,
    scheduler: str | None = None,
) -> list[dict]:
    """Execute the notebooks for each category with each combination of seeds and values, all in one pool.

    Parameters
    ----------
    seeds : sequence of int
    values : dict of str to list
        Values of further parameters, as `texad.batch.parameters.parse_values` returns them.
    dataset, category, weights_name, out, jobs, studies, progress, scheduler
        As for `texad.batch.batch.run`. The run folders of a combination lie in a folder of its own below `out`.

    Returns
    -------
    list of dict
        A row a combination and category: `setting` (the combination in words), those of the seed and the parameters that have several values,
        and the keys of `texad.batch.notebooks.COLUMNS`. A study that failed is one more row. Without these, it is what `out`/sweep.csv holds.

    Raises
    ------
    ValueError, texad.batch.dask_cluster.ClusterError
        As `texad.batch.batch.run`.
    """
    combinations = settings(seeds, values)
    results = batch.run_settings(
        combinations, dataset, category, weights_name, out, jobs, studies, progress, scheduler
    )
    swept = [name for name, several in {"seed": seeds, **values}.items() if len(several) > 1]
    rows, failed_studies = [], []
    for setting, (own, failed) in zip(combinations, results, strict=True):
        known = {"seed": setting.seed, **setting.parameters}
        head = {"setting": f"{setting.folder}/"} | {name: known[name] for name in swept}
        rows += [head | row for row in own]
        failed_studies += [head | row for row in failed]
    with replacing(Path(out).expanduser().resolve() / "sweep.csv") as temporary:
        for_spreadsheet(pd.DataFrame(rows, columns=[*swept, *COLUMNS])).to_csv(
            temporary, index=False
        )
    return rows + failed_studies


def table(rows: list[dict]) -> str:
    """The rows of `run` as a table for the terminal: for each category and value of the parameters the mean over the seeds, in brackets the lowest and the
    highest value.
    """
    frame = pd.DataFrame(rows)
    by = [name for name in frame.columns if name not in ("setting", "seed", *COLUMNS)] + [
        "category"
    ]
    lines = []
    for values, group in frame.groupby(by, sort=False):
        done = group[group["error"].isna()]
        lines.append(
            dict(zip(by, values, strict=True))
            | {"runs": len(done)}
            | {name: _spread(done[name].dropna()) for name in MEASURES}
        )
    return pd.DataFrame(lines).to_string(index=False)


def _spread(values: pd.Series) -> str:
    if values.empty:
        return "-"
    ends = f" ({values.min():.3f} to {values.max():.3f})" if len(values) > 1 else ""
    return f"{values.mean():.3f}{ends}"
