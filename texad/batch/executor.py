"""Many jobs at a time: a pool of workers, the bars that show what they do, and Ctrl-C.

`local` makes a pool of threads of this process, `texad.batch.dask_cluster.connect` one of machines
elsewhere; `run_all` knows no difference.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

from tqdm import tqdm

from texad.batch import notebooks
from texad.batch.notebooks import Job
from texad.errors import printable

MOST_BARS = 40  # more would leave the screen: then one bar stands for all

# what a job has come to: a stage, and how many cells are finished
Tell = Callable[[str, int], None]


@dataclass(frozen=True)
class Pool:
    """Workers, wherever they are.

    Attributes
    ----------
    submit : callable
        Takes a `Job` and what it tells its progress; returns the future of a row of the summary.
    abandon : callable
        Give up all jobs, at once.
    check : callable
        Called with the data set, its categories, the weights and the folder of the runs; it raises
        what keeps a worker from its work.
    watch : callable
        Called now and then while there is something to wait for.
    """

    submit: Callable[[Job, Tell], Future]
    abandon: Callable[[], None]
    check: Callable[[str, list[str], str, Path], None] = lambda *needed: None
    watch: Callable[[], None] = lambda: None


def run_all(todo: list[Job], pool: Pool, progress: bool) -> list[dict]:
    """Do all jobs.

    Parameters
    ----------
    todo : list of Job
    pool : Pool
    progress : bool
        Show bars.

    Returns
    -------
    list of dict
        A row of the summary for each job, in their order.

    Raises
    ------
    KeyboardInterrupt
        If it is interrupted from the keyboard; it says that the run can go on.
    """
    live = sys.stderr.isatty()
    bars = _bars(todo, live, progress)
    try:
        futures = [pool.submit(job, _teller(bar)) for job, bar in zip(todo, cycle(bars))]
        while not all(future.done() for future in futures):
            time.sleep(0.2)  # Ctrl-C here breaks no lock, as it might in a wait for futures
            pool.watch()
            for bar in bars if live else ():
                bar.refresh()  # the clock goes on during a long cell
    except KeyboardInterrupt:
        pool.abandon()
        raise KeyboardInterrupt(
            "interrupted; the same command goes on where this run stopped"
        ) from None
    finally:
        for bar in bars:
            bar.close()
    return [_row(job, future) for job, future in zip(todo, futures, strict=True)]


@contextmanager
def local(n_jobs: int) -> Iterator[Pool]:
    """Make a pool of threads of this process; what computes are the kernels that they start.

    Parameters
    ----------
    n_jobs : int
        Jobs at a time.
    """
    abandoned = threading.Event()
    with ThreadPoolExecutor(n_jobs) as executor:

        def submit(job: Job, tell: Tell) -> Future:
            return executor.submit(notebooks.run_category, job, tell, abandoned.is_set)

        def abandon() -> None:
            abandoned.set()
            executor.shutdown(wait=False, cancel_futures=True)

        yield Pool(submit, abandon)


def _bars(todo: list[Job], live: bool, progress: bool) -> list[tqdm]:
    """Make a bar for each job, or one for all if they are many; for a log, they seldom speak."""
    totals = [sum(notebooks.n_cells(stage, job.in_full) for stage in job.stages) for job in todo]
    labels = [printable(job.label) for job in todo]
    if len(todo) > MOST_BARS:
        totals, labels = [sum(totals)], [f"{len(todo)} categories"]
    width = max(map(len, labels), default=0)
    # Workers are threads here; a lock of processes leaves a semaphore.
    tqdm.set_lock(threading.RLock())
    return [
        tqdm(
            total=total,
            desc=label.ljust(width),
            position=i if live else 0,
            unit="cell",
            mininterval=0.1 if live else 20,
            disable=not progress,
        )
        for i, (label, total) in enumerate(zip(labels, totals, strict=True))
    ]


def _teller(bar: tqdm) -> Tell:
    """What one job tells its bar; a job that another worker begins anew sets the bar back."""
    done = 0

    def tell(stage: str, cells: int) -> None:
        nonlocal done
        with bar.get_lock():  # each worker tells from a thread of its own
            bar.set_postfix_str(stage, refresh=False)
            bar.update(cells - done)
            done = cells

    return tell


def _row(job: Job, future: Future) -> dict:
    try:
        return future.result()
    except CancelledError:
        return notebooks.empty_row(
            job,
            "given up, since the scheduler is gone or the task was cancelled; "
            "the same command goes on where it stopped",
        )
    except Exception as error:  # what no job should raise
        return notebooks.empty_row(job, f"worker: {type(error).__name__}: {error}")
