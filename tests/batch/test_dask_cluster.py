"""A cluster on the loopback: a scheduler and two workers.

Each is a process of its own without a nanny, so that a killed one stays dead.
"""

import builtins
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import run_arguments, texad, write_category

from texad.__main__ import main
from texad.batch import dask_cluster as cluster
from texad.batch import notebooks as jobs
from texad.data import datasets
from texad.io.paths import data_root
from texad.runs.run_folder import STAGES, Run

distributed = pytest.importorskip("distributed")
psutil = pytest.importorskip("psutil")  # comes with distributed

CATEGORIES = [f"surface {i}" for i in range(3)]
SMALL = ["-p", "image_size", 32, "-p", "steps", 1]
SECONDS = 300  # that anything may take at most; it takes a fraction where the machine is free


def wait_until(condition, seconds=SECONDS):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)
    return found


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "surfaces"
    for seed, name in enumerate(CATEGORIES):
        write_category(folder / name, n_train=4, n_good=2, n_defective=2, size=40, seed=seed)
    return folder


class Loopback:
    """A scheduler with an `address`, and `workers`: their processes by name."""

    def __init__(self, folder: Path):
        self.folder, self.workers = folder, {}
        file = folder / "scheduler.json"
        self.scheduler = self._start("scheduler", "--port", "0", "--scheduler-file", str(file))
        wait_until(lambda: file.exists() and file.read_text().endswith("}"), 60)
        self.address = json.loads(file.read_text())["address"]

    def start_worker(self, name: str) -> None:
        more = (
            "--name",
            name,
            "--no-nanny",
            "--nthreads",
            "1",
            "--local-directory",
            str(self.folder),
        )
        self.workers[name] = self._start("worker", self.address, *more)

    def _start(self, *arguments) -> subprocess.Popen:
        command = [
            str(Path(sys.executable).with_name("dask")),
            *arguments,
            "--host",
            "127.0.0.1",
            "--no-dashboard",
        ]
        threads = max(1, jobs.cores() // 2)  # as the local run with two jobs has
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        return subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
        )

    def stop(self) -> None:
        for process in (*self.workers.values(), self.scheduler):
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def dask(tmp_path_factory):
    loopback = Loopback(tmp_path_factory.mktemp("dask"))
    try:
        for name in ("one", "two"):
            loopback.start_worker(name)
        with distributed.Client(loopback.address, timeout=60, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
        yield loopback
    finally:
        loopback.stop()


def claims(out: Path) -> dict[str, Path]:
    """The run folders that are being filled, by the names of the workers that fill them."""
    return {file.read_text(): file.parent for file in out.rglob(cluster.CLAIM)}


def kernels(worker: int) -> list[psutil.Process]:
    """The kernels of a worker's process: forks of the server that it has started."""
    process = psutil.Process(worker)
    return [child for child in process.children(recursive=True) if child.ppid() != worker]


def in_the_middle_of_the_second_stage(out: Path, worker: str) -> Path | None:
    folder = claims(out).get(worker)
    stages = (
        json.loads((folder / "run.json").read_text())["stages"]
        if folder and (folder / "run.json").exists()
        else {}
    )
    return folder if set(stages) == {STAGES[0]} and "code" in stages[STAGES[0]] else None


# -- what keeps a cluster from its work ------------------------------------------------------------


def complaint(capsys, dataset, out, *more) -> str:
    assert main(list(map(str, run_arguments(dataset, out, *more)))) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("texad: ")]
    return line


def test_without_dask_one_line_says_what_to_install(dataset, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cluster, "distributed", None)
    assert "pip install 'texad[cluster]'" in complaint(
        capsys, dataset, tmp_path / "runs", "--scheduler", "tcp://127.0.0.1:1"
    )
    assert not (tmp_path / "runs").exists()


def test_the_module_can_be_imported_without_dask(monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name.split(".")[0] in ("distributed", "dask"):
            raise ModuleNotFoundError(name)
        return real(name, *arguments, **options)

    source = compile(Path(cluster.__file__).read_text(), cluster.__file__, "exec")
    monkeypatch.setattr(builtins, "__import__", without)
    names = {"__name__": "texad.without_dask", "__file__": cluster.__file__}
    exec(source, names)
    assert names["distributed"] is None


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "127.0.0.1", "smoke://127.0.0.1:8786"])
def test_an_address_without_a_scheduler_is_one_line_within_seconds(
    dataset, tmp_path, capsys, monkeypatch, address
):
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 2)
    started = time.monotonic()
    assert f"no Dask scheduler at {address}" in complaint(
        capsys, dataset, tmp_path / "runs", "--scheduler", address
    )
    assert time.monotonic() - started < 30 and not (tmp_path / "runs").exists()


def test_jobs_are_for_one_machine(dataset, tmp_path, capsys):
    assert "leave jobs out" in complaint(
        capsys, dataset, tmp_path / "runs", "--jobs", 2, "--scheduler", "tcp://127.0.0.1:1"
    )


def needs(out: Path, folder: Path, **others) -> dict:
    """What `require` is asked, when nothing is lacking."""
    (out / "token").write_text("token")
    fine = {
        "installed": cluster.INSTALLED,
        "token": str(out / "token"),
        "dataset": str(folder),
        "root": str(folder),
        "names": CATEGORIES,
        "resolved": "random",
        "digest": None,
    }
    return fine | others


def test_a_worker_that_has_all_it_needs_lacks_nothing_and_leaves_nothing(dataset, tmp_path):
    cluster.require(**needs(tmp_path, dataset))
    assert [file.name for file in tmp_path.iterdir()] == ["token"]


def test_what_a_worker_lacks_is_said(dataset, tmp_path):
    def said(**others):
        with pytest.raises(cluster.ClusterError) as caught:
            cluster.require(**needs(tmp_path, dataset, **others))
        return str(caught.value)

    (name,) = [name for name in cluster.INSTALLED if "code" in name]
    assert said(installed={name: "other"}).startswith("has the code of texad")
    assert said(installed={"torch": "0.3"}).startswith(
        f"has torch {cluster.INSTALLED['torch']}, not 0.3"
    )
    assert "does not see the folder /nowhere" in said(token="/nowhere/token")
    (tmp_path / "other").write_text("left by someone else")
    assert f"does not see the folder {tmp_path}" in said(token=str(tmp_path / "other"))
    assert f"does not see {dataset / 'surface 9'}" in said(names=[*CATEGORIES, "surface 9"])
    assert (
        f"looks for the data set in {data_root() / 'synthetic'}, not in /elsewhere/synthetic: "
        "set TEXAD_DATA to /elsewhere" in said(dataset="synthetic", root="/elsewhere/synthetic")
    )
    assert "cannot load the weights /nowhere.pth" in said(resolved="/nowhere.pth", digest="0")
    file = tmp_path / "weights.pth"
    torch.save({"layer3.5.conv3.weight": torch.zeros(1)}, file)
    assert f"has other weights {file}" in said(resolved=str(file), digest="0")


@pytest.mark.slow
def test_a_worker_that_does_not_see_the_folder_is_named(
    dask, dataset, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(
        cluster,
        "_sha256",
        lambda resolved: [file.unlink() for file in (tmp_path / "runs").iterdir()] and None,
    )  # the token
    monkeypatch.setattr(
        Path,
        "unlink",
        lambda file, missing_ok=True, unlink=Path.unlink: unlink(file, missing_ok=True),
    )
    line = complaint(capsys, dataset, tmp_path / "runs", "--scheduler", dask.address)
    assert (
        line.startswith("texad: worker tcp://127.0.0.1:")
        and f"does not see the folder {tmp_path / 'runs'}" in line
    )
    assert not list((tmp_path / "runs").iterdir())


# -- what runs on a cluster ------------------------------------------------------------------------


@pytest.mark.crash
def test_an_interrupted_client_leaves_no_kernel_behind(dask, dataset, tmp_path):
    address, workers = dask.address, dask.workers
    out = tmp_path / "runs"
    command = [
        sys.executable,
        "-m",
        "texad",
        *run_arguments(dataset, out, *SMALL, "--category", CATEGORIES[0], "--scheduler", address),
    ]
    client = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    (name,) = wait_until(lambda: claims(out))
    (kernel,) = wait_until(lambda: kernels(workers[name].pid))
    client.send_signal(signal.SIGINT)
    _, shown = client.communicate(timeout=60)
    assert client.returncode == 130 and "interrupted; the same command goes on" in shown
    wait_until(lambda: not kernel.is_running() and not claims(out), 60)
    assert not kernels(workers[name].pid) and not list(out.rglob("metrics.json"))


@pytest.mark.crash
def test_categories_come_out_as_on_one_machine_though_a_worker_is_killed(dask, dataset, tmp_path):
    address, workers = dask.address, dask.workers
    here, there = tmp_path / "here", tmp_path / "there"
    command = [
        sys.executable,
        "-m",
        "texad",
        *run_arguments(dataset, there, *SMALL, "--scheduler", address),
    ]
    client = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        left = wait_until(lambda: in_the_middle_of_the_second_stage(there, "one"))
        workers["one"].send_signal(signal.SIGKILL)
        before = json.loads((left / "run.json").read_text())["stages"]
        dask.start_worker("three")
        shown = client.communicate(timeout=2 * SECONDS)
    finally:
        client.kill()
    assert client.returncode == 0, shown
    assert workers["one"].poll() is not None and workers["two"].poll() is None
    after = json.loads((left / "run.json").read_text())["stages"]
    assert after[STAGES[0]] == before[STAGES[0]] and set(after) == set(
        STAGES
    )  # only the stage that was running was run again

    assert texad(*run_arguments(dataset, here, *SMALL, "--jobs", 2)).returncode == 0
    for category in CATEGORIES:
        assert (there / "surfaces" / category / "scores.csv").read_bytes() == (
            here / "surfaces" / category / "scores.csv"
        ).read_bytes()
    tables = [pd.read_csv(out / "summary.csv").drop(columns="seconds") for out in (here, there)]
    pd.testing.assert_frame_equal(*tables)
    assert tables[0]["category"].tolist() == CATEGORIES and tables[0]["error"].isna().all()
    summaries = [json.loads((out / "summary.json").read_text()) for out in (here, there)]
    assert [summary["weights"] for summary in summaries] == [summaries[0]["weights"]] * 2
    assert not claims(there) and not list(there.glob(".texad-*"))


# -- one writer at a time --------------------------------------------------------------------------


def test_who_takes_over_from_a_dead_worker_waits_until_its_kernel_is_dead(tmp_path, monkeypatch):
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    with cluster._claimed(tmp_path / "steel", "one"):
        assert (tmp_path / "steel" / cluster.CLAIM).read_text() == "one"
    assert not slept and not list((tmp_path / "steel").iterdir())
    (tmp_path / "steel" / cluster.CLAIM).write_text("dead")
    with cluster._claimed(tmp_path / "steel", "two"):
        assert slept == [cluster.GRACE_SECONDS] and cluster.GRACE_SECONDS > 1  # ipykernel's second


def test_the_folder_that_is_claimed_is_the_run_folder(dataset, tmp_path):
    assert (
        Run(dataset, CATEGORIES[0], tmp_path).folder
        == tmp_path / datasets.name(str(dataset)) / CATEGORIES[0]
    )
