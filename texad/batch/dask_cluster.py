"""Categories on other machines: the workers of a Dask cluster instead of threads of this process.

One category is one task, and all that tasks share is a folder: the data, the weights and the runs
must be on a file system that every machine sees under the same path (NFS, Lustre, a shared home).
Nothing but names and progress goes over the network.

The scheduler and the workers read this module, so what needs torch is imported only where it is
used: a scheduler does without.

Whatever becomes of a worker, a run folder has one writer at a time. A kernel ends when its worker
has: it looks for its parent each second, and a worker that takes over a category from a dead one
waits for longer than that. And a worker ends the kernel of a task that nobody waits for any more,
since Dask itself cannot interrupt what runs.

Dask: parallel computation with blocked algorithms and task scheduling, Rocklin, SciPy 2015,
doi:10.25080/Majora-7b98e3ed-013.
"""

from __future__ import annotations  # some of the classes are imported for type checkers only

import logging
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from texad.batch import code
from texad.data import datasets
from texad.io.paths import data_root

if TYPE_CHECKING:
    from texad.batch.executor import Pool, Tell
    from texad.batch.notebooks import Job

try:
    import distributed

    TIMEOUTS = (TimeoutError, distributed.TimeoutError)  # two kinds before Python 3.11
    ENDING = (distributed.Status.closing, distributed.Status.closed, distributed.Status.failed)
except ModuleNotFoundError:
    distributed = None  # type: ignore[assignment]  # mypy has no word for a missing module

CONNECT_SECONDS = 10  # for the scheduler to answer, and for a first worker to be there
CHECK_SECONDS = 120  # for a worker to look at what it needs; its disk may be slow
GRACE_SECONDS = 3.0  # more than the second in which a kernel notices that its worker is gone
CLAIM = ".claimed"  # in a run folder that a worker is filling


class ClusterError(ValueError):
    """The cluster cannot do the work; one line that says what is missing, and where."""


@contextmanager
def connect(address: str) -> Iterator[Pool]:
    """Make a pool of the workers of a Dask cluster.

    Parameters
    ----------
    address : str
        Address of the scheduler, as it prints it, for instance "tcp://192.168.0.10:8786".

    Raises
    ------
    ClusterError
        If Dask is not installed, no scheduler answers at `address`, or it has no worker.
    """
    from texad.batch.executor import Pool, Tell

    if distributed is None:
        raise ClusterError(
            "a cluster needs Dask: pip install 'texad[cluster]', "
            "or in a checkout pip install -e '.[cluster]'"
        )
    for name in list(logging.root.manager.loggerDict):  # errors are said here, in one line
        if name.startswith("distributed"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
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
                f"the scheduler at {address} has no worker; "
                f"start some with: dask worker {address} --nthreads 1"
            ) from None
        topic, tellers = f"texad-{uuid.uuid4().hex}", list[Tell]()
        executor = client.get_executor(pure=False)

        def hear(event: tuple[float, tuple[int, str, int]]) -> None:
            number, stage, cells = event[1]
            tellers[number](stage, cells)

        def submit(job: Job, tell: Tell) -> Future:
            tellers.append(tell)
            return executor.submit(work, topic, len(tellers) - 1, asdict(job))

        workers = 1

        def watch() -> None:
            """Say when no worker is left, once: the bars would only stand still."""
            nonlocal workers
            with suppress(OSError, *TIMEOUTS):  # if the scheduler is gone, the rows say so
                before, workers = workers, len(client.nthreads())
                if before and not workers:
                    print(
                        "\nno worker is left; waiting for one "
                        "(Ctrl-C ends this, and no result is lost)",
                        file=sys.stderr,
                    )

        client.subscribe_topic(topic, hear)
        yield Pool(submit, partial(executor.shutdown, wait=False), partial(check, client), watch)


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
        If a worker runs other code, or does not see the runs, the data or the weights; it names
        the worker and what it lacks.
    """
    out.mkdir(parents=True, exist_ok=True)
    token = out / f".texad-{uuid.uuid4().hex}"
    token.write_text(token.name, encoding="utf-8")
    needs = (
        INSTALLED,
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
            executor.submit(require, *needs, workers=[worker]): worker
            for worker in client.nthreads()
        }
        wait(futures, timeout=CHECK_SECONDS)
    finally:
        token.unlink()
    for future, worker in futures.items():
        if not future.done():
            raise ClusterError(
                f"worker {worker} did not answer within {CHECK_SECONDS} s: "
                "it is busy with other work, or cannot reach its disk"
            )
        try:
            future.result()
        except ClusterError as error:
            raise ClusterError(f"worker {worker} {error}") from None
        except Exception as error:
            raise ClusterError(
                f"worker {worker} cannot run texad ({error!r}): "
                "install the same version there, and start it again"
            ) from None


def require(
    installed: dict[str, str],
    token: str,
    dataset: str,
    root: str,
    names: list[str],
    resolved: str,
    digest: str | None,
) -> None:
    """Make sure, in a worker, that nothing keeps this process from working for the caller.

    Parameters
    ----------
    installed : dict of str to str
        `INSTALLED` of the caller.
    token : str
        A file that the caller has put into the folder of the runs; it contains its own name.
    dataset, names, resolved
        As for `check`.
    root : str
        The folder of the data set, as the caller sees it.
    digest : str or None
        SHA-256 of the weights, if they come from a file.

    Raises
    ------
    ClusterError
        It says what this process lacks, to be put after its name.
    """
    shared = "must be on a file system that all machines share, under the same path"
    for name, wanted in installed.items():
        if INSTALLED[name] != wanted:
            raise ClusterError(
                f"has {name} {INSTALLED[name]}, not {wanted} as this machine: install the same "
                "there, and start it again, since it keeps what it has imported"
            )
    file = Path(token)
    try:
        if file.read_text(encoding="utf-8") != file.name:
            raise FileNotFoundError
        tempfile.TemporaryFile(dir=file.parent).close()
    except PermissionError:
        raise ClusterError(
            f"may not write into {file.parent}: give its user the right to"
        ) from None
    except OSError:
        raise ClusterError(f"does not see the folder {file.parent}: --out {shared}") from None
    if str(_root(dataset)) != root:
        raise ClusterError(
            f"looks for the data set in {_root(dataset)}, not in {root}: "
            f"set TEXAD_DATA to {Path(root).parent} there"
        )
    for folder in (Path(root, name) for name in names):
        if not folder.is_dir():
            raise ClusterError(f"does not see {folder}: the data set {shared}")
    try:
        own = _sha256(resolved)
    except (ValueError, OSError) as error:
        raise ClusterError(f"cannot load the weights {resolved}: {error}") from None
    if own != digest:
        raise ClusterError(f"has other weights {resolved}: copy those of this machine there")


INSTALLED = {  # the code as it was imported: a worker may be older than the files on its disk
    **{name: version(name) for name in ("texad", "torch", "torchvision", "numpy")},
    "the code of texad with SHA-256": code.of_everything(),
}


def _root(dataset: str) -> Path:
    return data_root() / dataset if datasets.is_embedded(dataset) else Path(dataset)


def _sha256(resolved: str) -> str | None:
    """SHA-256 of the weights, after a download if need be; None for "random", which has no file."""
    from texad.model import weights

    return None if resolved == "random" else weights.load(resolved).sha256


# -- in a worker -----------------------------------------------------------------------------------


def work(topic: str, number: int, job: dict) -> dict:
    """Do a job in a worker of the cluster.

    Parameters
    ----------
    topic : str
        Where the client listens for progress.
    number : int
        Number of the job, told with its progress.
    job : dict
        The attributes of a `texad.batch.notebooks.Job`.

    Returns
    -------
    dict
        A row of the summary.
    """
    from texad.batch import notebooks

    worker = distributed.get_worker()
    task, todo = worker.get_current_task(), notebooks.Job(**job)

    def tell(stage: str, cells: int) -> None:
        worker.log_event(topic, (number, stage, cells))

    def given_up() -> bool:
        """The task was cancelled, or its client or scheduler is gone."""
        state = getattr(worker.state.tasks.get(task), "state", "forgotten")
        return worker.status in ENDING or state not in ("executing", "long-running", "resumed")

    with _claimed(Path(todo.runs, datasets.name(todo.dataset), todo.category), str(worker.name)):
        return notebooks.run_category(todo, tell, given_up)


@contextmanager
def _claimed(folder: Path, name: str) -> Iterator[None]:
    """Mark a run folder as being filled, after the kernel of a worker that died there has ended.

    A lock would do, but not each file system that machines share knows locks.
    """
    claim = folder / CLAIM
    if claim.exists():
        time.sleep(GRACE_SECONDS)
    folder.mkdir(parents=True, exist_ok=True)
    claim.write_text(name, encoding="utf-8")
    try:
        yield
    finally:
        claim.unlink(missing_ok=True)
