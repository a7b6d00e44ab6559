"""Categories on other machines: the workers of a Dask cluster in place of processes of this one.

One category is one task, and all that tasks share is a folder: the data, the weights and the runs must be on a file system that every
machine sees under the same path (NFS, Lustre, a shared home). Nothing but names and progress goes over the network.

The scheduler and the workers read this module, so what needs torch is imported only where it is used: a scheduler does without.

Whatever becomes of a worker, a run folder has one writer at a time. A kernel ends when its worker has: ipykernel looks for its parent
each second, and who takes over a category that a dead worker has left waits for longer than that. And a worker ends the kernel of a task
that nobody waits for any more, since Dask itself cannot interrupt what runs.

Dask: parallel computation with blocked algorithms and task scheduling, Rocklin, SciPy 2015, doi:10.25080/Majora-7b98e3ed-013.
"""

from __future__ import annotations  # some of the classes are imported for type checkers only

import hashlib
import json
import logging
import queue
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from texad.data import datasets
from texad.io.atomic import sha256
from texad.io.paths import data_root

if TYPE_CHECKING:
    from texad.batch.executor import Pool
    from texad.batch.kernels import ForkedKernelManager
    from texad.batch.notebooks import Job

try:
    import distributed

    TIMEOUTS = (TimeoutError, distributed.TimeoutError)  # two kinds before Python 3.11
    ENDING = (distributed.Status.closing, distributed.Status.closed, distributed.Status.failed)
except ModuleNotFoundError:
    distributed = None  # type: ignore[assignment]  # mypy has no word for a module that may be missing

CONNECT_SECONDS = 10  # for the scheduler to answer, and for a first worker to be there
CHECK_SECONDS = (
    120  # for a worker to look at what it needs: it reads the weights, perhaps from a slow disk
)
POLL_SECONDS = 0.5
GRACE_SECONDS = 3.0  # more than the second in which a kernel notices that its worker is gone
CLAIM = ".claimed"  # in a run folder that a worker is filling


class ClusterError(ValueError):
    """The cluster cannot do the work; one line that says what is missing, and where."""


@contextmanager
def connect(address: str) -> Iterator[Pool]:
    """A pool of the workers of a Dask cluster.

    Parameters
    ----------
    address : str
        Of the scheduler, as it prints it, for instance "tcp://192.168.0.10:8786".

    Raises
    ------
    ClusterError
        If Dask is not installed, no scheduler answers at `address`, or it has no worker.
    """
    from texad.batch.executor import Pool

    if distributed is None:
        raise ClusterError(
            "a cluster needs Dask: pip install 'texad[cluster]', or in a checkout pip install -e '.[cluster]'"
        )
    for name in [
        name for name in logging.root.manager.loggerDict if name.startswith("distributed")
    ]:
        logging.getLogger(name).setLevel(
            logging.CRITICAL
        )  # what goes wrong is said here in one line, not in Dask's tracebacks
    try:
        client = distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"no Dask scheduler at {address} ({error}); start one with: dask scheduler"
        ) from None
    with client:
        try:
            client.wait_for_workers(1, timeout=CONNECT_SECONDS)
        except TIMEOUTS:
            raise ClusterError(
                f"the scheduler at {address} has no worker; start some with: dask worker {address} --nthreads 1"
            ) from None
        topic = f"texad-{uuid.uuid4().hex}"
        events: queue.SimpleQueue[tuple] = queue.SimpleQueue()
        client.subscribe_topic(topic, lambda event: events.put(tuple(event[1])))
        executor = client.get_executor(pure=False)

        def submit(number: int, job: Job) -> Future:
            return executor.submit(work, topic, number, asdict(job))

        yield Pool(
            submit,
            events,
            partial(executor.shutdown, wait=False),
            partial(check, client),
            _watch(client),
        )


def _watch(client: distributed.Client) -> Callable[[], None]:
    """Say when no worker is left, once: the bars would only stand still."""
    seen, said = time.monotonic(), False

    def watch() -> None:
        nonlocal seen, said
        if time.monotonic() > seen + CONNECT_SECONDS:
            seen, alone = time.monotonic(), not client.nthreads()
            if alone and not said:
                print(
                    "\nno worker is left; waiting for one (Ctrl-C ends this, and nothing that is done is lost)",
                    file=sys.stderr,
                )
            said = alone

    return watch


# -- before anything runs --------------------------------------------------------------------------


def check(
    client: distributed.Client, dataset: str, names: list[str], resolved: str, out: Path
) -> None:
    """Make sure that every worker has what it needs.

    Parameters
    ----------
    client : distributed.Client
    dataset : str
        "synthetic", "mvtec", or an absolute path.
    names : list of str
        Categories.
    resolved : str
        As `texad.model.weights.resolve` returns it.
    out : Path
        The folder of the runs. It is made if need be.

    Raises
    ------
    ClusterError
        If a worker runs other code, or does not see the runs, the data or the weights; it names the worker and what it lacks.
    """
    out.mkdir(parents=True, exist_ok=True)
    token = out / f".texad-{uuid.uuid4().hex}"
    token.write_text(token.name, encoding="utf-8")
    needs = (
        fingerprint(),
        VERSIONS,
        str(token),
        dataset,
        str(_root(dataset)),
        names,
        resolved,
        _sha256(resolved),
    )
    try:
        executor = client.get_executor(pure=False)
        futures = {
            executor.submit(lacks, *needs, workers=[worker]): worker for worker in client.nthreads()
        }
        wait(futures, timeout=CHECK_SECONDS)
    finally:
        token.unlink()
    for future, worker in futures.items():
        if not future.done():
            raise ClusterError(
                f"worker {worker} did not answer within {CHECK_SECONDS} s: it is busy with other work, or cannot reach its disk"
            )
        if future.exception():
            raise ClusterError(
                f"worker {worker} cannot run texad ({_line(future.exception())}): install the same version there, and start it again"
            )
        if lacking := future.result():
            raise ClusterError(f"worker {worker} {lacking}")


def lacks(
    code: str,
    versions: dict[str, str],
    token: str,
    dataset: str,
    root: str,
    names: list[str],
    resolved: str,
    digest: str | None,
) -> str:
    """What keeps this process from working for the one that calls; empty if nothing does. Runs in a worker.

    Parameters
    ----------
    code : str
        `fingerprint` of the caller.
    versions : dict of str to str
        `VERSIONS` of the caller.
    token : str
        A file that the caller has put into the folder of the runs; it contains its own name.
    dataset, names, resolved
        As for `check`.
    root : str
        The folder of the data set, as the caller sees it.
    digest : str or None
        SHA-256 of the weights, if they come from a file.
    """
    for name, wanted in versions.items():
        if VERSIONS[name] != wanted:
            return f"has {name} {VERSIONS[name]}, not {wanted} as this machine: install the same there, and start it again"
    if CODE != code:
        return "runs other code of texad than this machine: bring both to the same state, and start it again, since it keeps what it has imported"
    file, own = Path(token), Path(f"{token}-{uuid.uuid4().hex}")
    try:
        if file.read_text(encoding="utf-8") != file.name:
            raise FileNotFoundError
        own.touch()
        own.unlink()
    except PermissionError:
        return f"may not write into {file.parent}: give its user the right to"
    except OSError:
        return f"does not see the folder {file.parent}: --out must be on a file system that all machines share, under the same path"
    if str(_root(dataset)) != root:
        return f"looks for the data set in {_root(dataset)}, not in {root}: set TEXAD_DATA to {Path(root).parent} there"
    missing = [name for name in names if not (Path(root) / name).is_dir()]
    if missing:
        return f"does not see {Path(root) / missing[0]}: the data set must be on a file system that all machines share, under the same path"
    try:
        if _sha256(resolved) != digest:
            return f"has other weights {resolved}: copy those of this machine there"
    except (ValueError, OSError) as error:
        return f"cannot load the weights {resolved}: {_line(error)}"
    return ""


def fingerprint() -> str:
    """SHA-256 over the package and the notebooks' cells: who runs other code makes other results."""
    digest, package = hashlib.sha256(), Path(__file__).resolve().parents[1]
    for file in sorted(package.rglob("*.py")):
        digest.update(file.read_bytes())
    for file in sorted((package.parent / "notebooks").glob("*.ipynb")):
        for cell in json.loads(file.read_text(encoding="utf-8"))["cells"]:
            digest.update("".join(cell["source"]).encode())
    return digest.hexdigest()


CODE = fingerprint()  # as it was imported; a worker may be older than the files on its disk
VERSIONS = {name: version(name) for name in ("texad", "torch", "torchvision", "numpy")}


def _root(dataset: str) -> Path:
    return data_root() / dataset if datasets.is_embedded(dataset) else Path(dataset)


def _sha256(resolved: str) -> str | None:
    """SHA-256 of the weights; those of ImageNet are downloaded if need be. None for "random", which have no file."""
    if resolved == "random":
        return None
    if resolved != "imagenet":
        return sha256(Path(resolved))
    from texad.model import weights

    return weights.load(resolved).sha256


# -- in a worker -----------------------------------------------------------------------------------


def work(topic: str, number: int, job: dict) -> dict:
    """Do a job in a worker of the cluster.

    Parameters
    ----------
    topic : str
        Where the client listens for progress.
    number : int
    job : dict
        The attributes of a `texad.batch.notebooks.Job`.

    Returns
    -------
    dict
        A row of the summary.
    """
    from texad.batch import notebooks as jobs

    todo = jobs.Job(**job)
    kernels: list[ForkedKernelManager] = []
    worker, ended = distributed.get_worker(), threading.Event()
    watch = threading.Thread(
        target=_end_when_cancelled,
        args=(worker, worker.get_current_task(), kernels, ended),
        daemon=True,
    )
    watch.start()
    try:
        with _claimed(
            Path(todo.runs) / datasets.name(todo.dataset) / todo.category, str(worker.name)
        ):
            return jobs.run_category(
                todo,
                lambda stage, cells: worker.log_event(topic, (number, stage, cells)),
                kernels.append,
            )
    finally:
        ended.set()


def _end_when_cancelled(
    worker: distributed.Worker,
    task: str,
    kernels: list[ForkedKernelManager],
    ended: threading.Event,
) -> None:
    """A task that was cancelled, or whose client or scheduler is gone, must not write into a folder that the next batch is filling."""
    while not ended.wait(POLL_SECONDS):
        state = getattr(worker.state.tasks.get(task), "state", "forgotten")
        if worker.status in ENDING or state not in ("executing", "long-running", "resumed"):
            if kernels:
                kernels[-1].end()


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


@contextmanager
def _claimed(folder: Path, name: str) -> Iterator[None]:
    """Mark a run folder as being filled; if a worker that died has left its mark, wait until its kernel is dead too."""
    claim = folder / CLAIM
    if claim.exists():
        time.sleep(GRACE_SECONDS)
    folder.mkdir(parents=True, exist_ok=True)
    claim.write_text(name, encoding="utf-8")
    try:
        yield
    finally:
        claim.unlink(missing_ok=True)
