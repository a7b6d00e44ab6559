"""Run the notebooks for many categories: papermill, in parallel processes, going on where a run was interrupted.

The five stages run for each category. The studies, which compare and explain, run for one, when the stages are done.

A stage is run again only if something it depends on has changed: its parameters, the data, the weights, the code, or a stage
before it. What was done stands in run.json; nothing else is remembered.
"""

import hashlib
import multiprocessing
import os
import queue
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from multiprocessing.connection import wait as wait_for
from pathlib import Path

import nbformat
import pandas as pd
import papermill
from nbclient.exceptions import DeadKernelError
from papermill.engines import NBClientEngine, papermill_engines
from tqdm import tqdm
from traitlets.config import Config

from texad import datasets, weights
from texad.artifacts import STAGES, STUDIES, Run, lead, read_json, write_json
from texad.files import replacing, sha256
from texad.parameters import defaults, notebooks_folder, parse_parameters

COLUMNS = ("category", "images", "image_auroc", "precision", "recall", "f1", "seconds", "error")


@dataclass(frozen=True)
class Job:
    """What one worker needs to know about one category."""

    dataset: str
    category: str
    weights: str
    runs: str
    seed: int
    parameters: dict[str, object]
    threads: int
    stages: tuple[str, ...] = STAGES


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
) -> list[dict]:
    """Execute the notebooks for each category and sum up.

    Parameters
    ----------
    dataset : str
        "synthetic", "mvtec", or a folder laid out as MVTec AD.
    category : str, default "all"
        "all", a name, or names with commas between.
    weights_name : str, default "auto"
        See `texad.weights.resolve`.
    out : str or Path, default "runs"
        Run folders are made under `out`/<data set>/<category>, the summary beside them.
    jobs : int, optional
        Categories at a time; as many as there are cores by default. The cores are shared out among them.
    seed : int, default 0
    parameters : dict of str to str, optional
        Further parameters of the notebooks, as typed on a command line.
    studies : bool, default False
        Then execute the studies (chapters 6 to 8) too, for the category that `artifacts.lead` names.
    progress : bool, default True
        Show a progress bar for each category.

    Returns
    -------
    list of dict
        A row a category, with the keys of `COLUMNS`; `error` is None where all went well. A study that failed is one more row.

    Raises
    ------
    ValueError
        If the data set, a category, the weights or a parameter is unknown or out of range. Nothing was run then.
    """
    names = datasets.select(dataset, category)
    dataset = dataset if datasets.is_embedded(dataset) else str(Path(dataset).expanduser().resolve())
    typed = parse_parameters(parameters or {})
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    jobs = min(cores if jobs is None else jobs, len(names))
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, not {jobs}")
    with warnings.catch_warnings(record=True):  # the banner at the end says it, and says it to users of "random" too
        warnings.simplefilter("always")
        resolved = weights.resolve(weights_name)
    _say_if_random(resolved)
    datasets.prepare(dataset, names)  # here, so that a download is made once and its progress is seen

    out = Path(out).expanduser().resolve()
    todo = [Job(dataset, name, resolved, str(out), seed, typed, max(1, cores // jobs)) for name in names]
    rows = _run_all(todo, jobs, progress)
    failed_studies = []
    if studies and (done := [row["category"] for row in rows if not row["error"]]):
        job = Job(dataset, lead(done), resolved, str(out), seed, typed, cores, STUDIES)
        failed_studies = [row for row in _run_all([job], 1, progress) if row["error"]]
    summary = {"dataset": datasets.name(dataset), "weights": _weights_used(todo), "seed": seed, "categories": rows}
    write_json(out / "summary.json", summary)
    with replacing(out / "summary.csv") as temporary:
        pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(temporary, index=False)
    _say_if_random(resolved)
    return rows + failed_studies


def table(rows: list[dict]) -> str:
    """The rows of `run` as a table for the terminal."""
    frame = pd.DataFrame(rows, columns=list(COLUMNS[:-1]))
    formats = {name: "{:.3f}".format for name in ("image_auroc", "precision", "recall", "f1")} | {"seconds": "{:.1f}".format}
    return frame.to_string(index=False, na_rep="-", formatters=formats)


# -- one category ----------------------------------------------------------------------------------


def run_category(job: Job, report: Callable[[str, int], None]) -> dict:
    """Execute those notebooks of a category that are not up to date.

    Parameters
    ----------
    job : Job
    report : callable
        Called with a stage and how many more of its cells are finished.

    Returns
    -------
    dict
        A row of the summary, with the keys of `COLUMNS`.
    """
    row, stage = dict.fromkeys(COLUMNS) | {"category": job.category}, "data"
    try:
        run = Run(job.dataset, job.category, job.runs)
        data = datasets.load_category(job.dataset, job.category)
        fingerprint = datasets.fingerprint(data)
        for stage in job.stages:
            given = {name: value for name, value in (asdict(job) | job.parameters).items() if name in defaults(stage)}
            if is_current(run, stage, given, data, fingerprint):
                report(stage, n_cells(stage))
            else:
                _execute(run, stage, given, report)
    except Exception as error:  # whatever went wrong here, the other categories go on
        return row | {"error": _explain(error, stage)}
    metrics = read_json(run.folder / "metrics.json")
    seconds = sum(entry["seconds"] for stage, entry in run.read()["stages"].items() if stage in STAGES)
    row |= {name: metrics[name] for name in ("image_auroc", "precision", "recall", "f1")}
    images = sum(metrics[name] for name in ("n_train", "n_calibration", "n_test"))
    return row | {"images": images, "seconds": round(seconds, 1)}


def is_current(
    run: Run, stage: str, given: dict[str, object], data: datasets.Category, fingerprint: str
) -> bool:
    """Would running this stage again give what is there already?

    Parameters
    ----------
    run : Run
    stage : str
    given : dict
        The parameters that the batch would pass to the notebook.
    data : Category
    fingerprint : str
        Of the data as they are now.
    """
    record = run.read()
    entry = record.get("stages", {}).get(stage)
    if entry is None or entry.get("code") != code_fingerprint(stage):
        return False
    if stage in STUDIES and entry.get("runs") != _runs_fingerprint(run):
        return False
    if (record["data"]["folder"], record["data"]["fingerprint"]) != (str(data.root), fingerprint):
        return False
    used = entry["parameters"]
    if used != {name: value for name, value in (defaults(stage) | given).items() if name in used}:
        return False
    file = Path(str(used.get("weights", "")))
    return not file.is_file() or sha256(file) == record["weights"]["sha256"]


def code_fingerprint(stage: str) -> str:
    """SHA-256 over the package and the stage's notebook: when the code changes, its results are out of date.

    Modules that no notebook imports are left out: those that start the notebooks, and the one that reads what they left.
    """
    digest, package = hashlib.sha256(), Path(__file__).parent
    for file in sorted(package.rglob("*.py")):
        if file.relative_to(package).parts[0] not in ("__main__.py", "batch.py", "parameters.py", "book"):
            digest.update(file.read_bytes())
    for cell in _notebook(stage).cells:
        digest.update(cell.source.encode())
    return digest.hexdigest()


def _runs_fingerprint(run: Run) -> str:
    """SHA-256 over the scores of all categories beside a run: what a study compares."""
    digest = hashlib.sha256()
    for other in run.finished():
        digest.update(f"{other.category}: {sha256(other.folder / 'scores.csv')}\n".encode())
    return digest.hexdigest()


def n_cells(stage: str) -> int:
    """Cells of a stage's notebook, the one with papermill's parameters included."""
    return len(_notebook(stage).cells) + 1


def _notebook(stage: str) -> nbformat.NotebookNode:
    return nbformat.read(notebooks_folder() / f"{stage}.ipynb", as_version=4)


def _execute(run: Run, stage: str, given: dict[str, object], report: Callable[[str, int], None]) -> None:
    target = run.folder / "notebooks" / f"{stage}.ipynb"
    failed = target.with_name(f"{stage}.failed.ipynb")
    code = code_fingerprint(stage)
    with replacing(target) as temporary:
        try:
            papermill.execute_notebook(
                _literal(notebooks_folder() / target.name),
                _literal(temporary),
                given,
                engine_name="texad",
                progress_bar=False,
                on_cell=lambda: report(stage, 1),
            )
        except papermill.PapermillExecutionError:
            os.replace(temporary, failed)  # with what it showed so far, to look at
            raise
    failed.unlink(missing_ok=True)
    stages = run.read()["stages"]
    entry = stages[stage] | {"code": code} | ({"runs": _runs_fingerprint(run)} if stage in STUDIES else {})
    run.write(stages=stages | {stage: entry})


def _literal(path: Path) -> str:
    """papermill fills in what stands between braces; the name of a folder may have some."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _explain(error: Exception, stage: str) -> str:
    """One line that says where and what."""
    if isinstance(error, papermill.PapermillExecutionError):
        return f"{stage}.ipynb, cell [{error.exec_count}]: {error.ename}: {error.evalue}"
    if isinstance(error, DeadKernelError):
        return f"{stage}.ipynb: the kernel died, perhaps for lack of memory"
    return f"{stage}: {type(error).__name__}: {error}"


class _Engine(NBClientEngine):
    """papermill's own engine, telling the batch of each finished cell."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, *, on_cell, **kwargs):
        complete = nb_man.cell_complete

        def cell_complete(*args, **options):
            complete(*args, **options)
            on_cell()

        nb_man.cell_complete = cell_complete
        with tempfile.TemporaryDirectory(prefix="texad-") as sockets:
            if os.name == "posix":  # no other user can reach them, and kernels that start together do not race for ports
                kwargs["config"] = Config({"KernelManager": {"transport": "ipc", "ip": f"{sockets}/kernel"}})
            return super().execute_managed_notebook(nb_man, kernel_name, **kwargs)


papermill_engines.register("texad", _Engine)


# -- all categories, in parallel -------------------------------------------------------------------

_events = None  # in a worker: the queue that leads to the progress bars


def _run_all(todo: list[Job], jobs: int, progress: bool) -> list[dict]:
    context = multiprocessing.get_context("spawn")
    events = context.Queue()
    total = sum(n_cells(stage) for stage in todo[0].stages)
    names = {job.category: job.category if job.stages == STAGES else f"{job.category}, studies" for job in todo}
    width = max(map(len, names.values()))
    live = sys.stderr.isatty()
    bars = {
        job.category: tqdm(
            total=total,
            desc=names[job.category].ljust(width),
            position=i if live else 0,
            unit="cell",
            mininterval=0.1 if live else 20,  # in a log, a line now and then
            disable=not progress,
        )
        for i, job in enumerate(todo)
    }
    pool = ProcessPoolExecutor(jobs, context, initializer=_start_worker, initargs=(events, todo[0].threads))
    futures = [pool.submit(_work, job) for job in todo]
    try:
        pending = set(futures)
        while pending:
            _, pending = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
            _drain(events, bars)
    except KeyboardInterrupt:
        pool.shutdown(wait=False, cancel_futures=True)
        print("\ninterrupted; the same command goes on where this run stopped", file=sys.stderr)
        os._exit(130)  # the workers notice and end, and so do their kernels
    finally:
        for bar in bars.values():
            bar.close()
    pool.shutdown()
    return [_result(job, future) for job, future in zip(todo, futures, strict=True)]


def _result(job: Job, future) -> dict:
    try:
        return future.result()
    except Exception as error:  # the worker process itself died
        return dict.fromkeys(COLUMNS) | {"category": job.category, "error": f"worker: {type(error).__name__}: {error}"}


def _drain(events, bars: dict[str, tqdm]) -> None:
    while True:
        try:
            category, stage, cells = events.get_nowait()
        except queue.Empty:
            break
        bars[category].set_postfix_str(stage, refresh=False)
        bars[category].update(cells)
    if sys.stderr.isatty():
        for bar in bars.values():
            bar.refresh()  # the clock goes on during a long cell


def _start_worker(events, threads: int) -> None:
    global _events
    _events = events
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)  # inherited by the kernels: all of them together use each core once
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """A worker whose batch was killed must not write into a folder that the next batch is filling."""
    wait_for([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _work(job: Job) -> dict:
    return run_category(job, lambda stage, cells: _events.put((job.category, stage, cells)))


# -- the summary -----------------------------------------------------------------------------------


def _weights_used(todo: list[Job]) -> dict | None:
    """Name and hash of the weights, as the first run that has any recorded them."""
    for job in todo:
        if used := Run(job.dataset, job.category, job.runs).read().get("weights"):
            return used
    return None


def _say_if_random(resolved: str) -> None:
    if resolved == "random":
        line = "!" * 100
        print(f"{line}\n{weights.RANDOM_WARNING}\n{line}", file=sys.stderr)
