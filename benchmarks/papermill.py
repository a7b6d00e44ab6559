"""What the notebooks cost: the batch of papermill against the same stages called directly, both for
two categories at a time.

A notebook runs in a kernel of its own. This start-up is measured apart: as many kernels, started as
the batch starts them, from a new process and as many at a time, that execute nothing but the
imports of the notebooks. The seconds that remain are those of the notebooks' own work, against
direct calls in two processes that have imported everything already.
"""

import asyncio
import multiprocessing
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd

from benchmarks import material, stages
from benchmarks.material import Options
from benchmarks.measure import Row, cores, median, spread
from texad.batch import batch
from texad.batch.kernels import KernelManager
from texad.data import synthetic
from texad.io.paths import notebooks_folder
from texad.runs import parameters
from texad.runs.run_folder import STAGES

JOBS = 2
BAR = 1.25
MAX_REPEATS = 3  # of a benchmark that takes minutes


def run(options: Options) -> list[Row]:
    names = sorted(synthetic.CATEGORIES)[: 2 if options.quick else None]
    sizes = dict(n_train=6, n_good=3, n_defective=5, size=64) if options.quick else {}
    root = options.work / ("synthetic-quick" if options.quick else "synthetic")
    for name in names:
        synthetic.write(root, name, progress=True, **sizes)
    fit_options = {"steps": 2, "hidden": 32, "bottleneck": 8} if options.quick else {}
    seconds = {"papermill": [], "start-up": [], "direct": []}
    for _ in range(min(options.repeats, MAX_REPEATS)):
        with material.folder(options) as folder:
            parameters = {
                name: str(value)
                for name, value in (fit_options | {"image_size": options.image_size}).items()
            }
            whole = (str(root), ",".join(names), options.weights, folder / "papermill", parameters)
            seconds["papermill"].append(in_processes(by_papermill, [whole], warm=False))
            seconds["start-up"].append(in_processes(start_up, [names], warm=False))
            calls = [
                (
                    str(root),
                    name,
                    str(folder / "direct"),
                    options.weights,
                    options.image_size,
                    fit_options,
                )
                for name in names
            ]
            seconds["direct"].append(in_processes(direct, calls, warm=True))
            check_equal(folder, root.name, names)
    return rows(seconds, len(names))


def rows(seconds: dict[str, list[float]], n_categories: int) -> list[Row]:
    """The ratios of measured seconds, with the start-up of the kernels and without it.

    Parameters
    ----------
    seconds : dict of str to list of float
        Of "papermill", "start-up" and "direct", a value a round.
    n_categories : int
    """
    rounds = list(zip(seconds["papermill"], seconds["start-up"], seconds["direct"], strict=True))
    kernels = n_categories * len(STAGES)
    start_up = median(seconds["start-up"])
    return [
        Row(
            "papermill",
            f"{n_categories} categories by papermill",
            median(seconds["papermill"]),
            "s",
            details={name: spread(v) for name, v in seconds.items()},
        ),
        Row(
            "papermill",
            "start-up of the kernels",
            start_up,
            "s",
            note=f"{kernels} kernels, {JOBS} at a time, {start_up * JOBS / kernels:.2f} s each",
        ),
        Row(
            "papermill",
            "(papermill - start-up) / direct calls",
            median([(p - s) / d for p, s, d in rounds]),
            at_most=BAR,
        ),
        Row(
            "papermill",
            "papermill with start-up / direct calls",
            median([p / d for p, _, d in rounds]),
        ),
    ]


def in_processes(function, arguments: list, warm: bool) -> float:
    """Seconds to call a function for each argument in up to `JOBS` processes, each with its share
    of the cores.

    Parameters
    ----------
    function : callable
        At the top of a module.
    arguments : list
    warm : bool
        Start the processes, and import what they need, before the clock does.
    """
    context = multiprocessing.get_context("spawn")
    everyone = context.Barrier(JOBS)
    started = time.perf_counter()
    with ProcessPoolExecutor(JOBS, context, _start, (max(1, cores() // JOBS), everyone)) as pool:
        if warm:
            list(pool.map(_wait, range(JOBS)))
            started = time.perf_counter()
        list(pool.map(function, arguments))
        return time.perf_counter() - started


def direct(call: tuple) -> None:
    """The five stages of one category, in this process."""
    root, name, runs, weights, image_size, fit_options = call
    stages.run_category(root, name, runs, weights, image_size=image_size, **fit_options)


def by_papermill(call: tuple) -> None:
    """The batch of all categories, from this process."""
    dataset, names, weights, runs, typed = call
    values = parameters.parse_values(typed)
    with material.quietly():
        done = batch.run(dataset, names, weights, runs, JOBS, values=values, progress=False)
    if failed := [row["error"] for row in done if row["error"]]:
        raise RuntimeError(f"the batch failed: {failed[0]}")


def start_up(names: list[str]) -> None:
    """The kernels of all categories, from this process, as `by_papermill` has them."""
    with ThreadPoolExecutor(JOBS) as pool:
        list(pool.map(_start_five, names))


def _start_five(_: str) -> None:
    """For each of the five notebooks: start a kernel, import what it imports, and end it."""
    for stage in STAGES:
        with tempfile.TemporaryDirectory() as sockets:  # as in texad.batch.notebooks
            asyncio.run(
                _start_one(
                    stage,
                    {"transport": "ipc", "ip": f"{sockets}/kernel"} if os.name == "posix" else {},
                )
            )


async def _start_one(stage: str, options: dict) -> None:
    manager = KernelManager(**options)
    await manager.start_kernel()
    client = manager.client()
    client.start_channels()
    try:
        await client.wait_for_ready(timeout=120)
        reply = await client.execute_interactive(
            imports_of(stage), allow_stdin=False, timeout=120, output_hook=lambda message: None
        )
        if reply["content"]["status"] != "ok":
            raise RuntimeError(f"the imports of {stage} failed: {reply['content']['evalue']}")
    finally:
        client.stop_channels()
        await manager.shutdown_kernel()


def imports_of(stage: str) -> str:
    """The lines of a chapter's notebook that import."""
    notebook = nbformat.read(notebooks_folder() / f"{stage}.ipynb", as_version=4)
    lines = [
        line
        for cell in notebook.cells
        if cell.cell_type == "code"
        for line in cell.source.splitlines()
    ]
    return "\n".join(line for line in lines if line.startswith(("import ", "from ")))


def check_equal(folder: Path, dataset: str, names: list[str]) -> None:
    """Both ways must give the same scores, or the comparison is of two different things."""
    for name in names:
        ours, theirs = (
            folder / way / dataset / name / "scores.csv" for way in ("papermill", "direct")
        )
        ours, theirs = pd.read_csv(ours), pd.read_csv(theirs)
        if not ours["path"].equals(theirs["path"]) or not np.allclose(
            ours["score"], theirs["score"], rtol=1e-4
        ):
            raise RuntimeError(
                f"{name}: benchmarks/stages.py gives other scores than the notebooks; bring it up "
                "to date with them"
            )


def _start(threads: int, everyone) -> None:
    global _everyone
    _everyone = everyone
    import torch

    torch.set_num_threads(threads)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)  # for the kernels that it starts


def _wait(_: int) -> None:
    """Until all processes have come so far."""
    from torchvision import models  # noqa: F401  what the package imports late

    _everyone.wait()
