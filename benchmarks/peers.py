"""A whole category, cold, by texad and by models of anomalib: from a command on image files to a
finished test.

texad runs its five notebooks in one process (`texad run --jobs 1`), with the figures. Each peer is
a process, too, see `anomalib_peer`. A peer is stopped when it has taken as long as the bar asks
for: then the ratio is known to be above the bar, and that is all one needs to know. Neither uses a
graphics processor.
"""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from unittest import mock

from benchmarks import material
from benchmarks.material import Options
from benchmarks.measure import Row, cores, median, spread

BARS = {"fre": 10.0, "patchcore": 10.0, "padim": 2.0}
TITLES = {"fre": "FRE, 20 epochs", "patchcore": "PatchCore, 1% coreset", "padim": "PaDiM"}
MAX_REPEATS = 3  # of texad; a peer runs once, since it takes many times as long
ENVIRONMENT = {"CUDA_VISIBLE_DEVICES": ""}


class PeerError(RuntimeError):
    """A peer ended without a result."""


def run(options: Options) -> list[Row]:
    if not options.anomalib_python:
        return skipped(
            "skipped: anomalib has an environment of its own; name its interpreter with "
            "--anomalib-python PATH"
        )
    problem = missing(options.anomalib_python)
    if problem:
        return skipped(f"skipped: {problem}")
    data = material.category(options)
    seconds = [texad_seconds(options, data.root) for _ in range(min(options.repeats, MAX_REPEATS))]
    details = {
        "category": data.name,
        "n_train": len(data.train),
        "n_test": len(data.test),
        "seconds": spread(seconds),
    }
    rows = [Row("peers", "texad, whole category", median(seconds), "s", details=details)]
    for model, bar in BARS.items():
        budget = None if options.quick else bar * median(seconds)
        try:
            taken, said = peer_seconds(
                options.anomalib_python, model, data.root, budget, epochs=1 if options.quick else 20
            )
            rows.append(peer_row(model, median(seconds), taken, said))
        except PeerError as error:  # what the others took is worth keeping
            rows.append(
                Row("peers", f"{TITLES[model]} / texad", None, at_least=bar, note=str(error))
            )
    return rows


def peer_row(model: str, texad: float, taken: float, said: dict | None) -> Row:
    """The ratio of the seconds; `said` is None if the peer was stopped after `taken` seconds."""
    details = {"seconds": round(taken, 1), "stopped": said is None, "said": said}
    return Row(
        "peers",
        f"{TITLES[model]} / texad",
        taken / texad,
        at_least=BARS[model],
        more_than=said is None,
        details=details,
    )


def skipped(why: str) -> list[Row]:
    return [
        Row("peers", f"{TITLES[model]} / texad", None, at_least=bar, note=why)
        for model, bar in BARS.items()
    ]


def missing(python: str) -> str:
    """What is wrong with an interpreter; empty if it has anomalib."""
    try:
        found = subprocess.run(
            [python, "-c", "import importlib.metadata as m; print(m.version('anomalib'))"],
            capture_output=True,
            text=True,
        )
    except OSError as error:
        return f"--anomalib-python cannot be started ({error.strerror})"
    return (
        ""
        if found.returncode == 0
        else "the environment of --anomalib-python has no anomalib: pip install anomalib there"
    )


def texad_seconds(options: Options, root: Path) -> float:
    quick = ["-p", "image_size", 64, "-p", "steps", 2] if options.quick else []
    with material.folder(options) as folder, mock.patch.dict(os.environ, ENVIRONMENT):
        started = time.perf_counter()
        material.run_texad(
            "--dataset",
            root.parent,
            "--category",
            root.name,
            "--weights",
            options.weights,
            "--jobs",
            1,
            "--out",
            folder,
            *quick,
        )
        return time.perf_counter() - started


def peer_seconds(
    python: str, model: str, root: Path, budget_s: float | None, epochs: int
) -> tuple[float, dict | None]:
    """Run a peer.

    Parameters
    ----------
    python : str
        Interpreter of the environment that has anomalib.
    model : str
        A key of `BARS`.
    root : Path
        Folder of the category.
    budget_s : float or None
        It is stopped after so many seconds; None for never.
    epochs : int
        Of FRE.

    Returns
    -------
    seconds : float
    said : dict or None
        The epochs, counts and metrics that it printed; None if it was stopped.

    Raises
    ------
    PeerError
        If it failed; says after how many seconds, and why.
    """
    command = [
        python,
        str(Path(__file__).with_name("anomalib_peer.py")),
        model,
        str(root),
        "--epochs",
        str(epochs),
    ]
    # as many threads as texad gives itself, whatever the shell says; a group of its own, so that
    # its loaders end with it
    environment = (
        os.environ
        | ENVIRONMENT
        | {"OMP_NUM_THREADS": str(cores()), "MKL_NUM_THREADS": str(cores())}
    )
    started = time.perf_counter()
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=budget_s)
    except subprocess.TimeoutExpired:
        return time.perf_counter() - started, None
    finally:
        _end(process)
    if process.returncode:
        lines = errors.strip().splitlines()
        why = (
            "it was killed, perhaps for lack of memory"
            if process.returncode == -signal.SIGKILL
            else lines[-1]
            if lines
            else f"status {process.returncode}"
        )
        raise PeerError(f"failed after {time.perf_counter() - started:.0f} s: {why}")
    return time.perf_counter() - started, json.loads(output.strip().splitlines()[-1])


def _end(process: subprocess.Popen) -> None:
    """Stop a process and those it started; nothing happens if it has ended."""
    if process.poll() is None:
        try:
            os.killpg(process.pid, 9)
        except ProcessLookupError:
            pass
        process.communicate()
