"""One category: execute its notebooks by papermill, those that are not up to date.

A stage is run again only if something it depends on has changed: its parameters, the data, the
weights, the code, or a stage before it; or if what it left is no longer as it left it. What was
done is in run.json; nothing else is remembered. So a category that was interrupted, in whatever
process and on whatever machine, goes on anywhere that sees its run folder.
"""

import hashlib
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import nbformat
import papermill
from traitlets.config import Config

from texad.batch import code
from texad.batch.kernels import THREADS, KernelManager
from texad.data import datasets, groups
from texad.errors import DamagedError
from texad.io.atomic import digests, replacing, sha256
from texad.io.images import WHITE
from texad.io.json_files import read_json
from texad.io.locks import alone
from texad.io.paths import notebooks_folder
from texad.runs.parameters import defaults
from texad.runs.run_folder import FILES, STAGES, STUDIES, Run

# What goes wrong is said in one line, by a row, and not by papermill's logger as well.
logging.getLogger("papermill").addHandler(logging.NullHandler())

MEASURES = ("image_auroc", "precision", "recall", "f1")
COLUMNS = ("category", "images", *MEASURES, "seconds", "error")
ASIDES = {"aside", "solution"}  # tags of cells that teach, and leave nothing for a result
LEFT_OUT = (
    "*This copy was made for its results: solutions and asides are left out. "
    "`texad run --studies` has them, for one category.*"
)


class StageError(RuntimeError):
    """A notebook failed; one line that says in which cell, and why."""


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
        Number for each notebook; None leaves it to the environment.
    label : str
        Its name on the progress bar.
    stages : tuple of str
    in_full : bool, default False
        Execute solutions and asides too, as for the category that the book's chapters show; a batch
        only wants the results.
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
    tell: Callable[[str, int], None],
    given_up: Callable[[], bool] = lambda: False,
) -> dict:
    """Execute those notebooks of a category that are not up to date.

    If another process is writing into the run folder, wait for it.

    Parameters
    ----------
    job : Job
    tell : callable
        Called with a stage and how many cells of the job are finished, whenever there is one more.
    given_up : callable, optional
        Asked every second or so. If it says yes, the running kernel is killed, and the row says
        that the job was given up.

    Returns
    -------
    dict
        A row of the summary, with the keys of `COLUMNS`.
    """
    row, stage, done = empty_row(job), "data", 0
    try:
        run = Run(job.dataset, job.category, job.runs)
        data = datasets.load_category(job.dataset, job.category)
        for note in data.notes:
            _say(f"{job.label}: {note}")
        table = groups.table_file(data.root, str(job.parameters.get("groups", "")))
        fingerprint = datasets.fingerprint(data, table)

        def go_on() -> None:
            if given_up():
                raise InterruptedError("given up; the same command goes on where it stopped")

        def waits(waited: int) -> None:
            go_on()
            if not waited:
                _say(
                    f"{run.folder} is in use by another batch or an open notebook; "
                    "waiting until it is done"
                )
                tell("waiting", 0)  # to the bar: the worker may be on another machine

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
                    _execute(run, stage, given, job, done, tell, given_up)
                done += n_cells(stage, job.in_full)
                tell(stage, done)
            metrics, record = read_json(run.folder / "metrics.json"), run.read()
    except StageError as error:
        return row | {"error": str(error)}
    except Exception as error:  # whatever went wrong here, the other categories go on
        return row | {"error": f"{stage}: {type(error).__name__}: {error}"}
    if (white := record.get("sight", {}).get("white", WHITE)) < WHITE:
        _say(f"{job.label}: level {white} of images of 16 bits is taken for white (-p white)")
    stages = record.get("stages", {}).items()
    seconds = sum(entry["seconds"] for stage, entry in stages if stage in STAGES)
    images = sum(metrics[name] for name in ("n_train", "n_calibration", "n_test"))
    measured = {name: metrics[name] for name in MEASURES}
    return row | measured | {"images": images, "seconds": round(seconds, 1)}


def _set_aside_if_damaged(run: Run) -> None:
    """Nothing can go on from a damaged run.json; what it says is lost, so the run is made again."""
    try:
        run.read()
    except DamagedError as error:
        aside = (run.folder / "run.json").replace(run.folder / "run.damaged.json")
        _say(f"{str(error).split(';')[0]}; it is now {aside.name}, and the run is made again")


def _say(line: str) -> None:
    print(f"\ntexad: {line}", file=sys.stderr, flush=True)  # a line of its own, below the bars


def empty_row(job: Job, error: str | None = None) -> dict:
    """Row of the summary that says nothing yet, or why it never will."""
    return dict.fromkeys(COLUMNS) | {"category": job.category, "error": error}


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def is_current(
    run: Run,
    stage: str,
    given: dict[str, object],
    data: datasets.Category,
    fingerprint: str,
    in_full: bool = False,
) -> bool:
    """Tell whether running a stage again would give what is there already, whole.

    Every file is read for it, which takes about a second for each gigabyte.

    Parameters
    ----------
    run : Run
    stage : str
    given : dict
        The parameters that the batch would pass to the notebook.
    data : Category
    fingerprint : str
        Fingerprint of the data as they are now.
    in_full : bool, default False
        Whether solutions and asides are asked for; a notebook that has them is current for those
        who do not ask, too.
    """
    record = run.read()
    known, entry = record.get("data", {}), record.get("stages", {}).get(stage, {})
    used = entry.get("parameters", {})
    weights = Path(str(used.get("weights", "")))
    wanted = {name: value for name, value in (defaults(stage) | given).items() if name in used}
    return (
        entry.get("code") == code_fingerprint(stage)
        and entry.get("in_full", True) >= in_full
        and (stage not in STUDIES or entry.get("runs") == _runs_fingerprint(run))
        and (known.get("folder"), known.get("fingerprint")) == (str(data.root), fingerprint)
        and used == wanted
        and (not weights.is_file() or sha256(weights) == record.get("weights", {}).get("sha256"))
        and entry.get("files") == digests(run.folder, (*FILES[stage], _executed(stage)))
    )


def code_fingerprint(stage: str) -> str:
    """SHA-256 over the stage's notebook and the code that it uses; see `texad.batch.code`."""
    return code.of_notebook(_notebook(stage))


def _runs_fingerprint(run: Run) -> str:
    """SHA-256 over the scores of all categories beside a run: what a study compares."""
    lines = (
        f"{other.category}: {sha256(other.folder / 'scores.csv')}\n" for other in run.finished()
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@cache
def n_cells(stage: str, in_full: bool) -> int:
    """Number of cells in a stage's executed notebook, the one with the parameters included."""
    return len(_notebook(stage, in_full).cells) + 1


def _executed(stage: str) -> str:
    return f"notebooks/{stage}.ipynb"


def _notebook(stage: str, in_full: bool = True) -> nbformat.NotebookNode:
    """A stage's notebook; if not in full, with those cells only that lead to a result."""
    notebook = nbformat.read(notebooks_folder() / f"{stage}.ipynb", as_version=4)
    if not in_full:
        notebook.cells = [
            cell for cell in notebook.cells if not ASIDES & set(cell.metadata.get("tags", []))
        ]
        notebook.cells[0].source += f"\n\n{LEFT_OUT}"  # below the title
    return notebook


def _execute(
    run: Run,
    stage: str,
    given: dict[str, object],
    job: Job,
    done: int,
    tell: Callable[[str, int], None],
    given_up: Callable[[], bool],
) -> None:
    target = run.folder / _executed(stage)
    failed = target.with_name(f"{stage}.failed.ipynb")
    fingerprint, started = code_fingerprint(stage), time.perf_counter()
    number, where = 0, "before its first cell"
    its_own = {"folder": run.folder, "threads": job.threads, "given_up": staticmethod(given_up)}

    def cell_starts(cell: nbformat.NotebookNode, cell_index: int) -> None:
        nonlocal number, where
        tell(stage, done + cell_index)
        if cell.cell_type == "code" and cell.source.strip():
            number += 1
            where = f"cell [{number}], which begins with {cell.source.strip().splitlines()[0]!r}"

    with (
        replacing(target) as temporary,
        tempfile.TemporaryDirectory(prefix="texad-") as private,
    ):
        source = Path(private, target.name)
        nbformat.write(_notebook(stage, job.in_full), source)
        # Files, where there can be: no other user reaches them, and kernels do not race for ports.
        sockets = {"transport": "ipc", "ip": f"{private}/kernel"} if os.name == "posix" else {}
        try:
            papermill.execute_notebook(
                _literal(source),
                _literal(temporary),
                given,
                progress_bar=False,
                request_save_on_cell_execute=False,  # nobody sees the file before it is finished
                kernel_manager_class=type("Kernel", (KernelManager,), its_own),
                config=Config({"KernelManager": sockets}),
                on_cell_start=cell_starts,
            )
        except papermill.PapermillExecutionError as error:
            os.replace(temporary, failed)  # with what it showed so far, to look at
            raise StageError(
                f"{stage}.ipynb, cell [{error.exec_count}]: {error.ename}: {error.evalue}"
            ) from None
        except RuntimeError as error:
            if "kernel died" not in str(error).lower():  # as nbclient and jupyter_client say it
                raise
            raise StageError(
                f"{stage}.ipynb, {where}: the kernel died, perhaps for lack of memory"
            ) from error
    failed.unlink(missing_ok=True)
    stages = run.read()["stages"]
    entry = stages[stage] | {
        "code": fingerprint,
        "in_full": job.in_full,
        "notebook_seconds": round(time.perf_counter() - started, 2),  # with the kernel's start
        "threads": job.threads or int(os.environ.get(THREADS[0]) or cores()),
        "cores": cores(),
        "files": stages[stage]["files"] | digests(run.folder, [_executed(stage)]),
    }
    if stage in STUDIES:
        entry["runs"] = _runs_fingerprint(run)
    run.write(stages=stages | {stage: entry})


def _literal(path: Path) -> str:
    """Path for papermill, which fills in what is between braces; a folder's name may have some."""
    return str(path).replace("{", "{{").replace("}", "}}")
