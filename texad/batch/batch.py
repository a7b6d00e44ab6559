"""Run the notebooks for many categories: here or on a cluster, once or for each setting of a sweep.

The five stages run for each category (see `texad.batch.notebooks`), for the results alone. What explains and compares, the solutions and asides of the
chapters and then the studies, runs for one category.
"""

import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from texad.batch import executor as pools
from texad.batch.notebooks import COLUMNS, MEASURES, Job, cores
from texad.batch.parameters import parse_parameters
from texad.data import datasets
from texad.errors import RunError
from texad.io.atomic import remove_leftovers, replacing
from texad.io.escape import for_spreadsheet
from texad.io.json_files import write_json
from texad.model import weights
from texad.runs.run_folder import STAGES, STUDIES, Run, lead


@dataclass(frozen=True)
class Setting:
    """A seed and parameters that categories are run with.

    Attributes
    ----------
    seed : int
    parameters : dict of str to object
        Of the notebooks, with their types.
    folder : str, default ""
        Below `out`, for the run folders and the summary; empty for `out` itself.
    """

    seed: int
    parameters: dict[str, object]
    folder: str = ""


def run(
    dataset: str,
    category: str = "all",
    weights_name: str = "auto",
    out: str | Path = "runs",
    jobs: int | None = None,
    seed: int = 0,
    parameters: dict[str, str] | None = None,
    studies: bool = False,
    progress: bool = True,
    scheduler: str | None = None,
) -> list[dict]:
    """Execute the notebooks for each category and sum up.

    Parameters
    ----------
    dataset : str
        "synthetic", "mvtec", or a folder laid out as MVTec AD.
    category : str, default "all"
        "all", a name, or names with commas between.
    weights_name : str, default "auto"
        See `texad.model.weights.resolve`.
    out : str or Path, default "runs"
        Run folders are made under `out`/<data set>/<category>, the summary beside them.
    jobs : int, optional
        Categories at a time; as many as there are cores by default. The cores are shared out among them.
    seed : int, default 0
    parameters : dict of str to str, optional
        Further parameters of the notebooks, as typed on a command line.
    studies : bool, default False
        Execute what a book shows beside the results, for the category that `artifacts.lead` names: solutions and asides of the chapters, and then
        the studies (chapters 6 to 9).
    progress : bool, default True
        Show a progress bar for each category.
    scheduler : str, optional
        Address of the scheduler of a Dask cluster, for instance "tcp://192.168.0.10:8786", whose workers do the work: see
        `texad.batch.dask_cluster`. They say how many categories run at a time, so `jobs` must be left out.

    Returns
    -------
    list of dict
        A row a category, with the keys of `texad.batch.notebooks.COLUMNS`; `error` is None where all went well. A study that failed is one more row.

    Raises
    ------
    ValueError
        If the data set, a category, the weights or a parameter is unknown or out of range. Nothing was run then.
    texad.batch.dask_cluster.ClusterError
        If there is no scheduler, no worker, or a worker lacks something. Nothing was run then.
    """
    setting = Setting(seed, parse_parameters(parameters or {}))
    ((rows, failed_studies),) = run_settings(
        [setting], dataset, category, weights_name, out, jobs, studies, progress, scheduler
    )
    return rows + failed_studies


def run_settings(
    settings: Sequence[Setting],
    dataset: str,
    category: str = "all",
    weights_name: str = "auto",
    out: str | Path = "runs",
    jobs: int | None = None,
    studies: bool = False,
    progress: bool = True,
    scheduler: str | None = None,
) -> list[tuple[list[dict], list[dict]]]:
    """Execute the notebooks for each category with each of several settings, all of them in one pool; each setting is summed up.

    Parameters
    ----------
    settings : sequence of Setting
        With different folders.
    dataset, category, weights_name, out, jobs, studies, progress, scheduler
        As for `run`.

    Returns
    -------
    list of tuple of two lists
        For each setting a row a category, and a row for each study that failed.

    Raises
    ------
    ValueError, texad.batch.dask_cluster.ClusterError
        As `run`.
    """
    names = datasets.select(dataset, category)
    dataset = (
        dataset if datasets.is_embedded(dataset) else str(Path(dataset).expanduser().resolve())
    )
    if scheduler is not None and jobs is not None:
        raise ValueError(
            "jobs is for one machine; on a cluster each worker runs a category for each of its threads: leave jobs out"
        )
    jobs = min(cores() if jobs is None else jobs, len(settings) * len(names))
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, not {jobs}")
    with warnings.catch_warnings(
        record=True
    ):  # the banner at the end says it, and says it to users of "random" too
        warnings.simplefilter("always")
        resolved = weights.resolve(weights_name)
    out = Path(out).expanduser().resolve()

    def job(setting: Setting, name: str, at_a_time: int, stages: tuple[str, ...] = STAGES) -> Job:
        threads = max(1, cores() // at_a_time) if scheduler is None else None
        label = (f"{setting.folder}/{name}" if setting.folder else name) + (
            "" if stages == STAGES else ", studies"
        )
        in_full = studies and name == lead(names) or stages != STAGES
        return Job(
            dataset,
            name,
            resolved,
            str(out / setting.folder),
            setting.seed,
            setting.parameters,
            threads,
            label,
            stages,
            in_full,
        )

    with _pool(scheduler, jobs) as pool:
        _say_if_random(resolved)
        datasets.prepare(
            dataset, names
        )  # here, so that a download is made once and its progress is seen
        pool.check(dataset, names, resolved, out)
        rows = pools.run_all(
            [job(setting, name, jobs) for setting in settings for name in names], pool, progress
        )
        results: list[tuple[Setting, list[dict], list[dict]]] = [
            (setting, rows[i * len(names) : (i + 1) * len(names)], [])
            for i, setting in enumerate(settings)
        ]
        if studies:
            done = [
                (result, lead(good))
                for result in results
                if (good := [row["category"] for row in result[1] if not row["error"]])
            ]
            in_full = (
                STAGES + STUDIES
            )  # nothing is left to do for the stages, unless the lead failed and the chapters show another category
            todo = [
                job(setting, name, max(1, min(jobs, len(done))), in_full)
                for (setting, *_), name in done
            ]
            for (result, _), row in zip(done, pools.run_all(todo, pool, progress), strict=True):
                result[2].extend([row] if row["error"] else [])
    for setting, own, _ in results:
        _sum_up(dataset, setting, own, out / setting.folder)
    _say_if_random(resolved)
    return [(own, failed_studies) for _, own, failed_studies in results]


def table(rows: list[dict]) -> str:
    """The rows of `run` as a table for the terminal."""
    frame = pd.DataFrame(rows, columns=list(COLUMNS[:-1]))
    formats: dict[Any, Callable] = {
        **dict.fromkeys(MEASURES, "{:.3f}".format),
        "seconds": "{:.1f}".format,
    }
    return frame.to_string(index=False, na_rep="-", formatters=formats)


def _pool(scheduler: str | None, jobs: int) -> AbstractContextManager[pools.Pool]:
    if scheduler is None:
        return pools.local(jobs)
    from texad.batch import dask_cluster as cluster  # only now: who has no cluster needs no Dask

    return cluster.connect(scheduler)


def _sum_up(dataset: str, setting: Setting, rows: list[dict], folder: Path) -> None:
    """Write the summary of a setting."""
    used = next(
        (used for row in rows if (used := _weights_used(dataset, row["category"], folder))), None
    )
    remove_leftovers(
        folder, older_than=60
    )  # of a batch that was killed here; another one may be here right now
    write_json(
        folder / "summary.json",
        {
            "dataset": datasets.name(dataset),
            "weights": used,
            "seed": setting.seed,
            "categories": rows,
        },
    )
    with replacing(folder / "summary.csv") as temporary:
        for_spreadsheet(pd.DataFrame(rows, columns=list(COLUMNS))).to_csv(temporary, index=False)


def _weights_used(dataset: str, category: str, folder: Path) -> dict | None:
    """Name and hash of a run's weights, if it has got so far."""
    try:
        return Run(dataset, category, folder).read().get("weights")
    except (RunError, OSError):  # its row says what is wrong with it
        return None


def _say_if_random(resolved: str) -> None:
    if resolved == "random":
        line = "!" * 100
        print(f"{line}\n{weights.RANDOM_WARNING}\n{line}", file=sys.stderr)
