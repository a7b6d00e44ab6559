"""Run the notebooks for many categories: here or on a cluster, once or for each setting of a sweep.

The five stages run for each category (see `texad.batch.notebooks`), for the results alone. What
explains and compares, the solutions and asides of the chapters and then the studies, runs for one
category.

    OUT/<data set>/<category>/    the run folders
    OUT/summary.csv, .json        a row for each category

A sweep has them for each combination of seeds and values, and a table of all:

    OUT/seed=0,bottleneck=64/     only what has several values is in the name
    OUT/sweep.csv                 a row for each combination and category
"""

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pandas as pd

from texad.batch import executor
from texad.batch.notebooks import COLUMNS, Job, cores
from texad.batch.sweeps import Setting, settings
from texad.data import datasets
from texad.errors import check_range
from texad.io.atomic import remove_leftovers
from texad.io.escape import write_table
from texad.io.json_files import write_json
from texad.model import weights
from texad.runs.run_folder import STAGES, STUDIES, FinishedRun, lead


def run(
    dataset: str,
    category: str = "all",
    weights_name: str = "auto",
    out: str | Path = "runs",
    jobs: int | None = None,
    seeds: Sequence[int] = (0,),
    values: dict[str, list[Any]] | None = None,
    studies: bool = False,
    progress: bool = True,
    scheduler: str | None = None,
) -> list[dict]:
    """Execute the notebooks for each category, with each seed and value, and sum up.

    Parameters
    ----------
    dataset : str
        "synthetic", "mvtec", or a folder laid out as MVTec AD.
    category : str, default "all"
        "all", a name, or names with commas between.
    weights_name : str, default "auto"
        See `texad.model.weights.resolve`.
    out : str or Path, default "runs"
        Where the run folders and tables go.
    jobs : int, optional
        Categories at a time; as many as there are cores by default. The cores are shared out among
        them.
    seeds : sequence of int, default (0,)
    values : dict of str to list, optional
        Values of further parameters of the notebooks, as `texad.runs.parameters.parse_values`
        returns them. Every combination of seeds and values is run, all of them in one pool.
    studies : bool, default False
        Execute what a book shows beside the results, for the category that
        `texad.runs.run_folder.lead` names: solutions and asides of the chapters, and then the
        studies (chapters 6 to 9).
    progress : bool, default True
        Show a progress bar for each category.
    scheduler : str, optional
        Address of the scheduler of a Dask cluster, for instance "tcp://192.168.0.10:8786", whose
        workers do the work: see `texad.batch.dask_cluster`. They say how many categories run at a
        time, so `jobs` must be left out.

    Returns
    -------
    list of dict
        A row for each combination and category, with the keys of `texad.batch.notebooks.COLUMNS`;
        `error` is None where all went well. In a sweep, `setting` and what has several values come
        first. A study that failed is one more row.

    Raises
    ------
    ValueError
        If the data set, a category, the weights or a parameter is unknown or out of range. Nothing
        was run then.
    texad.batch.dask_cluster.ClusterError
        If there is no scheduler, no worker, or a worker lacks something. Nothing was run then.
    """
    names, combinations = datasets.select(dataset, category), settings(seeds, values or {})
    if not datasets.is_embedded(dataset):
        dataset = str(Path(dataset).expanduser().resolve())
    if scheduler is not None and jobs is not None:
        raise ValueError(
            "jobs is for one machine; on a cluster each worker runs a category for each of its "
            "threads: leave jobs out"
        )
    jobs = min(cores() if jobs is None else jobs, len(combinations) * len(names))
    check_range("jobs", jobs, at_least=1)
    resolved = weights.resolve(weights_name)
    out = Path(out).expanduser().resolve()

    def job(setting: Setting, name: str, at_a_time: int, stages: tuple[str, ...] = STAGES) -> Job:
        label = f"{setting.folder}/{name}" if setting.folder else name
        return Job(
            dataset=dataset,
            category=name,
            weights=resolved,
            runs=str(out / setting.folder),
            seed=setting.seed,
            parameters=setting.parameters,
            threads=max(1, cores() // at_a_time) if scheduler is None else None,
            label=label if stages == STAGES else f"{label}, studies",
            stages=stages,
            in_full=studies and name == lead(names) or stages != STAGES,
        )

    with _pool(scheduler, jobs) as pool:
        _say_if_random(resolved)
        datasets.prepare(dataset, names)  # here: a download is made once, and its progress is seen
        pool.check(dataset, names, resolved, out)
        todo = [job(setting, name, jobs) for setting in combinations for name in names]
        done = executor.run_all(todo, pool, progress)
        results = [
            (setting, done[i * len(names) : (i + 1) * len(names)])
            for i, setting in enumerate(combinations)
        ]
        # Of the stages, nothing is left to do in the studies' jobs; unless the lead failed, and the
        # chapters show another category.
        shown = [
            (setting, lead(good))
            for setting, rows in results
            if studies and (good := [row["category"] for row in rows if not row["error"]])
        ]
        at_a_time = max(1, min(jobs, len(shown)))
        todo = [job(setting, name, at_a_time, STAGES + STUDIES) for setting, name in shown]
        studied = executor.run_all(todo, pool, progress)
    for setting, rows in results:
        _sum_up(dataset, setting, rows, out / setting.folder)
    _say_if_random(resolved)
    found = [_head(setting) | row for setting, rows in results for row in rows]
    if len(combinations) > 1:
        table = pd.DataFrame(found, columns=[*combinations[0].swept, *COLUMNS])
        write_table(out / "sweep.csv", table)
    failed = zip((setting for setting, _ in shown), studied, strict=True)
    return found + [_head(setting) | row for setting, row in failed if row["error"]]


def _pool(scheduler: str | None, jobs: int) -> AbstractContextManager[executor.Pool]:
    if scheduler is None:
        return executor.local(jobs)
    from texad.batch import dask_cluster  # only now: without a cluster, nobody needs Dask

    return dask_cluster.connect(scheduler)


def _head(setting: Setting) -> dict[str, Any]:
    """What a row of a sweep begins with."""
    return {"setting": f"{setting.folder}/"} | setting.swept if setting.swept else {}


def _sum_up(dataset: str, setting: Setting, rows: list[dict], folder: Path) -> None:
    """Write the summary of a setting."""
    runs = folder / datasets.name(dataset)
    used = (FinishedRun(runs / row["category"]).read() for row in rows if not row["error"])
    remove_leftovers(folder, older_than=60)  # of a batch that was killed; another may be here now
    write_json(
        folder / "summary.json",
        {
            "dataset": runs.name,
            "weights": next(used, {}).get("weights"),
            "seed": setting.seed,
            "categories": rows,
        },
    )
    write_table(folder / "summary.csv", pd.DataFrame(rows, columns=list(COLUMNS)))


def _say_if_random(resolved: str) -> None:
    if resolved == "random":
        line = "!" * 100
        print(f"{line}\n{weights.RANDOM_WARNING}\n{line}", file=sys.stderr)
