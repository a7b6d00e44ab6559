"""One category: execute its notebooks by papermill, those that are not up to date.

A stage is run again only if something it depends on has changed: its parameters, the data, the weights, the code, or a stage
before it; or if what it left is no longer as it left it. What was done stands in run.json; nothing else is remembered. So a category that
was interrupted, in whatever process and on whatever machine, goes on anywhere that sees its run folder.
"""

import hashlib
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from papermill.engines import NBClientEngine, papermill_engines
from traitlets.config import Config

from texad.batch.kernels import THREADS, ForkedKernelManager
from texad.batch.parameters import defaults
from texad.data import datasets
from texad.errors import DamagedError
from texad.io.atomic import digests, replacing, sha256
from texad.io.json_files import read_json
from texad.io.locks import alone
from texad.io.paths import notebooks_folder
from texad.runs.run_folder import FILES, STAGES, STUDIES, Run

MEASURES = ("image_auroc", "precision", "recall", "f1")
COLUMNS = ("category", "images", *MEASURES, "seconds", "error")
ASIDES = {"aside", "solution"}  # tags of cells that teach, and leave nothing for a result
LEFT_OUT = "*This copy was made for its results: solutions and asides are left out. `texad run --studies` has them, for one category.*"
STARTERS = {"__main__.py", "batch", "commands", "site"}  # no notebook imports them


logging.getLogger("papermill").setLevel(
    logging.CRITICAL
)  # what goes wrong is said in one line, by `_explain`


class KernelDiedError(RuntimeError):
    """A notebook's process ended before the notebook did; says in which cell."""


@dataclass(frozen=True)
class Job:
    """What is to be done for one category.

    Attributes
    ----------
    dataset, category, weights, runs : str
        As the notebooks take them.
    seed : int
    parameters : dict of str to object
        Further parameters of the notebooks.
    threads : int or None
        Of each notebook; None leaves it to the environment.
    label : str
        Its name on the progress bar.
    stages : tuple of str
    in_full : bool, default False
        Execute solutions and asides too, as for the category that the book's chapters show; a batch only wants the results.
    """

    dataset: str
    category: str
    weights: str
    runs: str
    seed: int
    parameters: dict[str, object]
    threads: int | None
    label: str
    stages: tuple[str, ...] = STAGES
    in_full: bool = False


def run_category(
    job: Job,
    report: Callable[[str, int], None],
    on_kernel: Callable[[ForkedKernelManager], None] = lambda kernel: None,
    given_up: Callable[[], bool] = lambda: False,
) -> dict:
    """Execute those notebooks of a category that are not up to date. If another process is writing into the run folder, wait for it.

    Parameters
    ----------
    job : Job
    report : callable
        Called with a stage and how many cells of the job are finished, whenever there is one more.
    on_kernel : callable, optional
        Called with the manager of each kernel, before it starts.
    given_up : callable, optional
        Asked before each stage, and while it waits for the folder; if it says yes, that is the row's error.

    Returns
    -------
    dict
        A row of the summary, with the keys of `COLUMNS`.
    """
    row, stage, done = empty_row(job), "data", 0
    try:
        run = Run(job.dataset, job.category, job.runs)
        data = datasets.load_category(job.dataset, job.category)
        fingerprint = datasets.fingerprint(data)

        def go_on() -> None:
            if given_up():
                raise InterruptedError("given up; the same command goes on where it stopped")

        def waits(waited: int) -> None:
            go_on()
            if not waited:
                _say(
                    f"{run.folder} is in use by another batch or an open notebook; waiting until it is done"
                )
                report("waiting", 0)  # to the bar: the worker may be on another machine

        with alone(run.folder, waits):
            _set_aside_if_damaged(run)
            for stage in job.stages:
                go_on()
                given = {
                    name: value
                    for name, value in (asdict(job) | job.parameters).items()
                    if name in defaults(stage)
                }
                if not is_current(run, stage, given, data, fingerprint, job.in_full):
                    _execute(run, stage, given, job, partial(_tell, report, stage, done), on_kernel)
                done += n_cells(stage, job.in_full)
                report(stage, done)
            metrics, stages = read_json(run.folder / "metrics.json"), run.read()["stages"]
    except Exception as error:  # whatever went wrong here, the other categories go on
        return row | {"error": _explain(error, stage)}
    seconds = sum(entry["seconds"] for stage, entry in stages.items() if stage in STAGES)
    row |= {name: metrics[name] for name in MEASURES}
    images = sum(metrics[name] for name in ("n_train", "n_calibration", "n_test"))
    return row | {"images": images, "seconds": round(seconds, 1)}


def _tell(report: Callable[[str, int], None], stage: str, before: int, cells: int) -> None:
    report(stage, before + cells)


def _set_aside_if_damaged(run: Run) -> None:
    """Nothing can go on from a damaged run.json; what it says is lost, so the run is made again."""
    try:
        run.read()
    except DamagedError as error:
        _say(
            f"{str(error).split(';')[0]}; it is now {run.set_aside().name}, and the run is made again"
        )


def _say(line: str) -> None:
    print(f"\ntexad: {line}", file=sys.stderr, flush=True)  # a line of its own, below the bars


def empty_row(job: Job, error: str | None = None) -> dict:
    """A row of the summary that says nothing yet, or why it never will."""
    return dict.fromkeys(COLUMNS) | {"category": job.category, "error": error}


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def is_current(
    run: Run,
    stage: str,
    given: dict[str, object],
    data: datasets.Category,
    fingerprint: str,
    in_full: bool = False,
) -> bool:
    """Would running this stage again give what is there already, and is that whole? Every file is read for it: about a second for each gigabyte.

    Parameters
    ----------
    run : Run
    stage : str
    given : dict
        The parameters that the batch would pass to the notebook.
    data : Category
    fingerprint : str
        Of the data as they are now.
    in_full : bool, default False
        Whether solutions and asides are asked for; what has them is current for those who do not ask, too.
    """
    record = run.read()
    entry = record.get("stages", {}).get(stage)
    if (
        entry is None
        or entry.get("code") != code_fingerprint(stage)
        or in_full > entry.get("in_full", True)
    ):
        return False
    if stage in STUDIES and entry.get("runs") != _runs_fingerprint(run):
        return False
    known = record.get("data", {})
    if (known.get("folder"), known.get("fingerprint")) != (str(data.root), fingerprint):
        return False
    used = entry.get("parameters", {})
    if used != {name: value for name, value in (defaults(stage) | given).items() if name in used}:
        return False
    file = Path(str(used.get("weights", "")))
    if file.is_file() and sha256(file) != record.get("weights", {}).get("sha256"):
        return False
    return entry.get("files") == digests(run.folder, (*FILES[stage], _executed(stage)))


def code_fingerprint(stage: str) -> str:
    """SHA-256 over the package and the stage's notebook: when the code changes, its results are out of date.

    Modules that no notebook imports are left out: those that start the notebooks, and the one that reads what they left.
    """
    digest, package = hashlib.sha256(), Path(__file__).resolve().parents[1]
    for file in sorted(package.rglob("*.py")):
        if file.relative_to(package).parts[0] not in STARTERS:
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


def n_cells(stage: str, in_full: bool) -> int:
    """Cells of a stage's notebook that are executed, the one with papermill's parameters included."""
    return len(_kept(_notebook(stage).cells, in_full)) + 1


def _kept(cells: list[nbformat.NotebookNode], in_full: bool) -> list[nbformat.NotebookNode]:
    """All cells, or only those that lead to a result."""
    return [cell for cell in cells if in_full or not ASIDES & set(cell.metadata.get("tags", []))]


def _executed(stage: str) -> str:
    return f"notebooks/{stage}.ipynb"


def _notebook(stage: str) -> nbformat.NotebookNode:
    return nbformat.read(notebooks_folder() / f"{stage}.ipynb", as_version=4)


def _execute(
    run: Run,
    stage: str,
    given: dict[str, object],
    job: Job,
    on_cells: Callable[[int], None],
    on_kernel: Callable,
) -> None:
    target = run.folder / _executed(stage)
    failed = target.with_name(f"{stage}.failed.ipynb")
    code, started = code_fingerprint(stage), time.perf_counter()
    with replacing(target) as temporary:
        try:
            papermill.execute_notebook(
                _literal(notebooks_folder() / target.name),
                _literal(temporary),
                given,
                engine_name="texad",
                progress_bar=False,
                request_save_on_cell_execute=False,  # nobody sees the file before it is finished
                folder=run.folder,
                threads=job.threads,
                in_full=job.in_full,
                on_cells=on_cells,
                on_kernel=on_kernel,
            )
        except papermill.PapermillExecutionError:
            os.replace(temporary, failed)  # with what it showed so far, to look at
            raise
    failed.unlink(missing_ok=True)
    stages = run.read()["stages"]
    threads = job.threads or int(os.environ.get(THREADS[0]) or cores())
    cost = {
        "notebook_seconds": round(time.perf_counter() - started, 2),
        "threads": threads,
        "cores": cores(),
    }  # with the kernel's start
    entry = (
        stages[stage]
        | {"code": code, "in_full": job.in_full}
        | cost
        | ({"runs": _runs_fingerprint(run)} if stage in STUDIES else {})
    )
    entry["files"] |= digests(run.folder, [_executed(stage)])
    run.write(stages=stages | {stage: entry})


def _literal(path: Path) -> str:
    """papermill fills in what stands between braces; the name of a folder may have some."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _explain(error: Exception, stage: str) -> str:
    """One line that says where and what."""
    if isinstance(error, papermill.PapermillExecutionError):
        return f"{stage}.ipynb, cell [{error.exec_count}]: {error.ename}: {error.evalue}"
    if isinstance(error, KernelDiedError):
        return f"{stage}.ipynb, {error}"
    return f"{stage}: {type(error).__name__}: {error}"


class _Engine(NBClientEngine):
    """papermill's own engine, telling of the kernel, of each finished cell, and of the cell in which the kernel died."""

    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: Any,
        kernel_name: str,
        *,
        folder: Path,
        threads: int | None,
        in_full: bool,
        on_cells: Callable[[int], None],
        on_kernel: Callable,
        **kwargs: Any,
    ) -> Any:
        title, *others = _kept(nb_man.nb.cells, in_full)
        if not in_full:
            title.source += f"\n\n{LEFT_OUT}"
        nb_man.nb.cells = [title, *others]
        start, complete, finished, where = (
            nb_man.cell_start,
            nb_man.cell_complete,
            0,
            "before its first cell",
        )

        def cell_start(cell: Any, cell_index: Any = None, **options: Any) -> None:
            nonlocal where
            start(cell, cell_index, **options)
            if cell.cell_type == "code":
                number = sum(
                    each.cell_type == "code" and bool(each.source.strip())
                    for each in nb_man.nb.cells[: cell_index + 1]
                )
                where = f"cell [{number}], which begins with {_first_line(cell.source)!r}"

        def cell_complete(*args: Any, **options: Any) -> None:
            nonlocal finished
            complete(*args, **options)
            finished += 1
            on_cells(finished)

        class Kernel(ForkedKernelManager):
            def __init__(self, *args: Any, **options: Any):
                super().__init__(*args, **options)
                self.held, self.threads = folder, threads
                on_kernel(self)

        nb_man.cell_start, nb_man.cell_complete = cell_start, cell_complete
        kwargs["kernel_manager_class"] = Kernel
        with tempfile.TemporaryDirectory(prefix="texad-") as sockets:
            if (
                os.name == "posix"
            ):  # no other user can reach them, and kernels that start together do not race for ports
                kwargs["config"] = Config(
                    {"KernelManager": {"transport": "ipc", "ip": f"{sockets}/kernel"}}
                )
            try:
                return super().execute_managed_notebook(nb_man, kernel_name, **kwargs)
            except RuntimeError as error:
                if (
                    isinstance(error, DeadKernelError) or "kernel died" in str(error).lower()
                ):  # jupyter_client's word for it, while it starts
                    raise KernelDiedError(
                        f"{where}: the kernel died, perhaps for lack of memory"
                    ) from error
                raise


def _first_line(source: str) -> str:
    return next((line for line in source.splitlines() if line.strip()), "")


papermill_engines.register("texad", _Engine)
