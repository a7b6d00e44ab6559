"""Many jobs at a time: a pool of workers, the bars that show what they do, and what Ctrl-C does to them.

A pool is a `concurrent.futures.Executor` that is given jobs, and a queue of what its workers tell meanwhile. `local` makes one of
threads of this process, `texad.batch.dask_cluster.connect` one of machines elsewhere; `run_all` knows no difference.
"""

import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

from tqdm import tqdm

from texad.batch import notebooks as jobs
from texad.batch.kernels import ForkedKernelManager
from texad.batch.notebooks import Job
from texad.errors import printable

MOST_BARS = 40  # more would leave the screen: then one bar stands for all

_numbers = count()  # of all jobs of this process, so that none is taken for another


@dataclass(frozen=True)
class Pool:
    """Workers, wherever they are.

    Attributes
    ----------
    submit : callable
        Takes a number and a `Job`, and returns an executor's future of a row of the summary.
    events : queue.SimpleQueue
        Tuples of the job's number, a stage, and how many cells of the job are finished.
    abandon : callable
        Give up all jobs, at once.
    check : callable
        Called with the data set, its categories, the weights and the folder of the runs; it raises what keeps a worker from its work.
    watch : callable
        Called now and then while there is something to wait for.
    """

    submit: Callable[[int, Job], Future]
    events: queue.SimpleQueue
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
    SystemExit
        With status 130, if it is interrupted from the keyboard. The kernels end at once, and the threads that wait for them within seconds.
    """
    if not todo:
        return []
    live = sys.stderr.isatty()
    bars, done = _bars(todo, live, progress), [0] * len(todo)
    try:
        numbers = [next(_numbers) for _ in todo]
        positions = {number: i for i, number in enumerate(numbers)}
        futures = [pool.submit(number, job) for number, job in zip(numbers, todo, strict=True)]
        pending = set(futures)
        while pending:
            _, pending = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
            _drain(pool.events, positions, bars, done, live)
            pool.watch()
    except KeyboardInterrupt:
        pool.abandon()
        print("\ninterrupted; the same command goes on where this run stopped", file=sys.stderr)
        raise SystemExit(130) from None
    finally:
        for bar in bars:
            bar.close()
    return [_result(job, future) for job, future in zip(todo, futures, strict=True)]


@contextmanager
def local(n_jobs: int) -> Iterator[Pool]:
    """A pool of threads of this process. What computes are the kernels, and these are processes of their own.

    Parameters
    ----------
    n_jobs : int
        Jobs at a time.
    """
    _start_quiet_tracker()
    events: queue.SimpleQueue[tuple] = queue.SimpleQueue()
    executor, abandoned = ThreadPoolExecutor(n_jobs), threading.Event()
    at_work: dict[
        int, ForkedKernelManager | None
    ] = {}  # the latest kernel of each job, by its number

    def work(number: int, job: Job) -> dict:
        at_work[number] = None
        try:
            return jobs.run_category(
                job,
                lambda stage, cells: events.put((number, stage, cells)),
                partial(at_work.__setitem__, number),
                abandoned.is_set,
            )
        finally:
            del at_work[number]

    def submit(number: int, job: Job) -> Future:
        return executor.submit(work, number, job)

    def end_kernels() -> None:
        while at_work:
            for kernel in list(at_work.values()):
                if kernel is not None:
                    kernel.end()
            time.sleep(0.05)  # one may have been about to start

    def abandon() -> None:
        abandoned.set()
        executor.shutdown(wait=False, cancel_futures=True)
        threading.Thread(target=end_kernels, daemon=True).start()

    try:
        yield Pool(submit, events, abandon)
    finally:
        executor.shutdown(wait=not abandoned.is_set())


def _start_quiet_tracker() -> None:
    """Start the process that removes the semaphores which killed kernels have left. It warns of each, but here they are killed on purpose."""
    before = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = "ignore:resource_tracker:UserWarning" + (
        f",{before}" if before else ""
    )
    try:
        resource_tracker.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONWARNINGS"]
        else:
            os.environ["PYTHONWARNINGS"] = before


# -- what is seen of them --------------------------------------------------------------------------


def _bars(todo: list[Job], live: bool, progress: bool) -> list[tqdm]:
    """A bar for each job, or one for all if they are many."""
    options: dict[str, Any] = {
        "unit": "cell",
        "mininterval": 0.1 if live else 20,
        "disable": not progress,
    }  # in a log, a line now and then
    kinds = {(job.stages, job.in_full) for job in todo}  # few, and notebooks must be read for each
    cells = {
        (stages, in_full): sum(jobs.n_cells(stage, in_full) for stage in stages)
        for stages, in_full in kinds
    }
    totals = [cells[job.stages, job.in_full] for job in todo]
    if len(todo) > MOST_BARS:
        return [tqdm(total=sum(totals), desc=f"{len(todo)} categories", **options)]
    labels = [printable(job.label) for job in todo]
    width = max(map(len, labels))
    return [
        tqdm(total=total, desc=label.ljust(width), position=i if live else 0, **options)
        for i, (label, total) in enumerate(zip(labels, totals, strict=True))
    ]


def _drain(
    events: queue.SimpleQueue,
    positions: dict[int, int],
    bars: list[tqdm],
    done: list[int],
    live: bool,
) -> None:
    """Show all that has been told since, of these jobs. A job that another worker had to take over begins its bar anew."""
    while True:
        try:
            number, stage, cells = events.get_nowait()
        except queue.Empty:
            break
        if number not in positions:  # the last word of a job that is done, which came late
            continue
        i = positions[number]
        bar = bars[i % len(bars)]  # its own, or the only one
        bar.set_postfix_str(stage, refresh=False)
        bar.update(cells - done[i])
        done[i] = cells
    if live:
        for bar in bars:
            bar.refresh()  # the clock goes on during a long cell


def _result(job: Job, future: Future) -> dict:
    try:
        return future.result()
    except CancelledError:
        return jobs.empty_row(
            job,
            "given up, since the scheduler is gone or the task was cancelled; the same command goes on where it stopped",
        )
    except Exception as error:  # what no job should raise
        return jobs.empty_row(job, f"worker: {type(error).__name__}: {error}")
