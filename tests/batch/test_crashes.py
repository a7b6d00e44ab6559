"""Runs that are killed, interrupted, out of room, beside each other or tampered with.

Nothing is lost, and nothing half-written is left. Most runs here are `go_on`, the five stages in
one process that goes on where the last one was killed: cheap enough to kill it many times. Then
whole batches, with their kernels, are killed too.
"""

import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import psutil
import pytest
from conftest import run_arguments, write_category
from PIL import Image
from safetensors import safe_open

from benchmarks import stages as direct
from texad.batch import notebooks as jobs
from texad.batch.fork_server import PRELOADED
from texad.data import datasets
from texad.io.atomic import TEMPORARY, digests
from texad.io.locks import LOCK, leave, take
from texad.io.paths import notebooks_folder
from texad.runs import parameters
from texad.runs.run_folder import FILES, STAGES, Run

pytestmark = [
    pytest.mark.crash,
    pytest.mark.skipif(
        sys.platform != "linux", reason="it looks for processes as Linux lists them"
    ),
]

KILLS, KILLS_OF_BATCHES = 46, 4
PATIENCE_S = 300.0  # for what takes half a minute on an idle machine
GIVEN = {
    "weights": "random",
    "seed": 0,
    "image_size": 64,
    "steps": 2,
    "hidden": 32,
    "bottleneck": 8,
}  # as conftest.QUICK
RESULTS = ("scores.csv", "metrics.json")


@pytest.fixture(scope="module")
def steel(tmp_path_factory) -> Path:
    """A data set of one tiny category."""
    folder = tmp_path_factory.mktemp("data") / "surfaces"
    write_category(folder / "steel", n_train=5, n_good=2, n_defective=2, seed=4)
    return folder


@pytest.fixture(scope="module")
def undisturbed(steel, tmp_path_factory) -> Path:
    """The run folder of a whole batch that nobody disturbed."""
    out = tmp_path_factory.mktemp("undisturbed")
    batch = Batch(steel, out)
    assert batch.end() == 0, batch.said
    return out / "surfaces" / "steel"


@pytest.fixture
def copied(undisturbed, tmp_path) -> Path:
    """A copy of it; the folder of the runs."""
    shutil.copytree(undisturbed, tmp_path / "runs" / "surfaces" / "steel")
    return tmp_path / "runs"


def results(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in RESULTS]


def assert_whole(folder: Path) -> None:
    """Every file in a run folder can be read to its end, and is as run.json says."""
    read = {
        ".npy": lambda file: np.load(file),
        ".csv": pd.read_csv,
        ".json": lambda file: json.loads(file.read_text()),
        ".safetensors": lambda file: [
            part.get_tensor(name)
            for part in [safe_open(file, framework="pt")]
            for name in part.keys()
        ],
        ".svg": ElementTree.parse,
        ".png": lambda file: Image.open(file).load(),
        ".jpg": lambda file: Image.open(file).load(),
        ".ipynb": lambda file: nbformat.validate(nbformat.read(file, as_version=4)),
    }
    for file in folder.rglob("*"):
        if file.is_file() and file.name != ".lock" and not TEMPORARY.fullmatch(file.name):
            read[file.suffix](file)
    record = json.loads((folder / "run.json").read_text()) if (folder / "run.json").exists() else {}
    for stage, entry in record.get("stages", {}).items():
        assert entry["files"] == digests(folder, entry["files"]), stage
        assert set(entry["files"]) >= set(FILES[stage])


def leftovers(folder: Path) -> list[Path]:
    return [file for file in folder.rglob(".*") if TEMPORARY.fullmatch(file.name)]


# -- processes -------------------------------------------------------------------------------------


class Batch:
    """The command line in a session of its own, and its processes."""

    def __init__(self, dataset: Path, out: Path, largest_file: int = resource.RLIM_INFINITY):
        self.mark = f"TEXAD_TEST_MARK={os.getpid()}-{time.monotonic_ns()}"
        command = [
            sys.executable,
            "-m",
            "texad",
            *map(str, run_arguments(dataset, out, "--jobs", 1)),
        ]
        environment = os.environ | dict([self.mark.split("=")]) | {"PYTHONFAULTHANDLER": "1"}

        def prepare() -> None:
            signal.signal(
                signal.SIGINT, signal.SIG_DFL
            )  # the tests may have been started by a shell that lets its background jobs ignore it
            resource.setrlimit(
                resource.RLIMIT_FSIZE, (largest_file, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
            )

        self.main = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
            preexec_fn=prepare,
        )
        self.said = ""

    def processes(self, role: str = "") -> list[psutil.Process]:
        """All that belong to it and still run; or its "kernel", or the "server" of kernels."""
        found = []
        for process in psutil.process_iter():
            try:
                environment, command = (
                    Path(f"/proc/{process.pid}/environ").read_bytes(),
                    " ".join(process.cmdline()),
                )
                if (
                    self.mark.encode() not in environment
                    or process.status() == psutil.STATUS_ZOMBIE
                ):
                    continue
                forked = "multiprocessing.forkserver" in command
                if (
                    not role
                    or forked
                    and role == ("kernel" if os.getsid(process.pid) == process.pid else "server")
                ):
                    found.append(process)
            except (OSError, psutil.Error, AttributeError):
                continue  # it has ended meanwhile
        return found

    def wait_until(self, condition: Callable[[], Any]) -> Any:
        """What the condition gives, as soon as it does; None if the batch ends without."""
        deadline = time.monotonic() + PATIENCE_S
        while self.main.poll() is None:
            if found := condition():
                return found
            if time.monotonic() > deadline:
                self.end(0)
            time.sleep(0.02)
        return None

    def wait_for(self, role: str) -> psutil.Process | None:
        """The kernel or its server, as soon as there is one; None if the batch ends without."""
        found = self.wait_until(lambda: self.processes(role))
        return found[0] if found else None

    def end(self, seconds: float = PATIENCE_S) -> int:
        """Wait until it has ended; the exit status.

        If it does not end, the test fails and shows what each process is at.
        """
        try:
            self.said += self.main.communicate(timeout=seconds)[1]
        except subprocess.TimeoutExpired:
            for process in self.processes():
                process.send_signal(
                    signal.SIGABRT
                )  # Python then says where it is, see PYTHONFAULTHANDLER
            pytest.fail(
                f"the batch does not end; its processes:\n{self.main.communicate(timeout=60)[1]}"
            )
        return self.main.returncode

    def assert_gone(self, seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while left := self.processes():
            assert time.monotonic() < deadline, [process.cmdline() for process in left]
            time.sleep(0.05)


def go_on(dataset: Path, out: Path) -> None:
    """Do in this process what a batch does: stages that are not done, or whose files changed."""
    run = Run(dataset, "steel", out)
    options = {"steps": 2, "hidden": 32, "bottleneck": 8}
    todo = (
        lambda: direct.preprocess(run, datasets.load_category(dataset, "steel"), 32, 0.2),
        lambda: direct.extract(run, "random", 0),
        lambda: direct.fit(run, 0, **options),
        lambda: direct.score(run, 0),
        lambda: direct.evaluate(run, 0),
    )
    for stage, call in zip(STAGES, todo, strict=True):
        done = run.read().get("stages", {}).get(stage, {})
        if done.get("files") != digests(run.folder, FILES[stage]):
            call()


@pytest.fixture
def context(monkeypatch):
    """Processes that have imported all that `go_on` needs: their time goes into the stages."""
    folder = Path(__file__).parent
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (folder, *folder.parents[:2]))))
    forkserver._forkserver._stop()  # that of tests before, which has imported less
    multiprocessing.set_forkserver_preload(["test_crashes", *PRELOADED])
    yield multiprocessing.get_context("forkserver")
    forkserver._forkserver._stop()


def test_a_run_that_is_killed_at_any_moment_ends_with_the_same_results(steel, context, tmp_path):
    def start(out: Path) -> multiprocessing.Process:
        process = context.Process(target=go_on, args=(steel, out))
        process.start()
        return process

    start(tmp_path / "first").join()  # with the server's start
    began = time.monotonic()
    start(tmp_path / "undisturbed").join()
    seconds, expected = (
        time.monotonic() - began,
        results(tmp_path / "undisturbed" / "surfaces" / "steel"),
    )
    assert results(tmp_path / "first" / "surfaces" / "steel") == expected

    rng, killed, ended, reached, folder = (
        random.Random(0),
        0,
        0,
        set(),
        tmp_path / "killed" / "surfaces" / "steel",
    )
    longest = (
        0.7 * seconds
    )  # of a life; it follows the machine, which may be busier now than it was
    while killed < KILLS or not ended:
        process = start(tmp_path / "killed")
        process.join(rng.uniform(0, longest) if killed < KILLS else None)
        if process.is_alive():
            process.kill()
            process.join()
            killed, longest = killed + 1, 1.1 * longest
            assert_whole(folder)
            reached |= set(Run(steel, "steel", tmp_path / "killed").read().get("stages", {}))
        else:  # it came to its end
            assert process.exitcode == 0
            assert_whole(folder)
            assert results(folder) == expected and not leftovers(folder)
            shutil.rmtree(folder)
            ended, longest = ended + 1, 0.6 * longest
    assert reached >= {*STAGES[:4]}  # it was killed in each of the five


def test_a_batch_that_is_killed_whole_or_in_part_ends_with_the_same_results(
    steel, undisturbed, tmp_path
):
    out, folder = tmp_path / "runs", tmp_path / "runs" / "surfaces" / "steel"
    rng, killed = random.Random(1), 0
    while killed < KILLS_OF_BATCHES:
        batch = Batch(steel, out)
        target = ("all", "server", "kernel", "main")[killed % 4]
        batch.wait_for("kernel")
        time.sleep(rng.uniform(0, 3))
        victim = batch.wait_for(target) if target in ("server", "kernel") else None
        if batch.main.poll() is None:
            if target == "all":
                os.killpg(batch.main.pid, signal.SIGKILL)
            else:
                (victim or batch.main).kill()
            killed += 1
        status = batch.end(60)
        batch.assert_gone()
        assert_whole(folder)
        if (
            target in ("server", "kernel") and status == 1
        ):  # the batch itself lives on, and says what has happened
            (line,) = [line for line in batch.said.splitlines() if "failed" in line]
            assert "the kernel died" in line
            assert "Traceback" not in batch.said
        if status == 0:  # it was faster
            assert results(folder) == results(undisturbed)
            shutil.rmtree(out)
    assert Batch(steel, out).end() == 0
    assert_whole(folder)
    assert results(folder) == results(undisturbed) and not leftovers(folder)


# -- one process at a time -------------------------------------------------------------------------


def test_two_batches_in_one_folder_take_turns(steel, undisturbed, tmp_path):
    batches = [Batch(steel, tmp_path) for _ in range(2)]
    statuses = [batch.end() for batch in batches]
    assert statuses == [0, 0]
    waited = [
        line
        for batch in batches
        for line in batch.said.splitlines()
        if "waiting until it is done" in line
    ]
    assert len(waited) == 1 and str(tmp_path / "surfaces" / "steel") in waited[0]
    assert_whole(tmp_path / "surfaces" / "steel")
    assert results(tmp_path / "surfaces" / "steel") == results(undisturbed)


def test_a_folder_stays_locked_until_the_kernel_of_a_dead_batch_has_ended(steel, tmp_path):
    batch, folder = Batch(steel, tmp_path), tmp_path / "surfaces" / "steel"
    kernel = batch.wait_for("kernel")
    kernel.suspend()  # it cannot see that its batch ends
    os.killpg(batch.main.pid, signal.SIGKILL)
    batch.main.wait()
    time.sleep(1)
    assert not take(folder)
    kernel.resume()
    batch.assert_gone()
    deadline = time.monotonic() + 5
    while not take(folder):  # the system closes the files of an ended process a moment later
        assert time.monotonic() < deadline
        time.sleep(0.01)
    leave(folder)


# -- Ctrl-C ----------------------------------------------------------------------------------------


def test_an_interruption_ends_every_process_within_seconds_and_the_run_can_go_on(
    steel, undisturbed, tmp_path, monkeypatch, request
):
    folder = tmp_path / "surfaces" / "steel"
    temporary = Path(tempfile.mkdtemp(prefix="t"))  # short: sockets take 107 letters at most
    request.addfinalizer(lambda: shutil.rmtree(temporary))
    monkeypatch.setenv("TMPDIR", str(temporary))
    for file, interrupt in (
        ("images.csv", os.killpg),
        ("scores.csv", os.kill),
    ):  # as a terminal does, to all; and to the first process only
        batch = Batch(steel, tmp_path)
        batch.wait_until((folder / file).exists)
        began = time.monotonic()
        interrupt(batch.main.pid, signal.SIGINT)
        assert batch.end(30) == 130, batch.said
        batch.assert_gone(10)
        assert time.monotonic() < began + 10
        assert (
            "interrupted; the same command goes on" in batch.said
            and "Traceback" not in batch.said
            and "leaked" not in batch.said
        )
        left = [*temporary.glob("texad-*"), *temporary.glob("pymp-*")]  # with sockets
        assert not left
        assert_whole(folder)
    assert not (folder / "metrics.json").exists()
    first = (folder / "backbone.safetensors").stat().st_mtime_ns
    assert Batch(steel, tmp_path).end() == 0
    assert (
        folder / "backbone.safetensors"
    ).stat().st_mtime_ns == first  # what was done is not done again
    assert results(folder) == results(undisturbed) and not leftovers(folder)


def test_a_batch_that_waits_for_another_one_can_be_interrupted(steel, tmp_path):
    folder = tmp_path / "surfaces" / "steel"
    assert take(folder)
    try:
        batch = Batch(steel, tmp_path)
        while "waiting until it is done" not in batch.said and batch.main.poll() is None:
            batch.said += batch.main.stderr.readline()
        batch.main.send_signal(signal.SIGINT)
        assert batch.end(30) == 130
        batch.assert_gone(10)
        assert [file.name for file in folder.iterdir()] == [LOCK]
    finally:
        leave(folder)


# -- no room ---------------------------------------------------------------------------------------


def test_a_full_disk_is_one_line_and_with_room_the_run_goes_on(steel, undisturbed, tmp_path):
    folder = tmp_path / "surfaces" / "steel"
    batch = Batch(steel, tmp_path, largest_file=2_000_000)  # less than the backbone takes
    assert batch.end() == 1
    (line,) = [line for line in batch.said.splitlines() if "failed" in line]
    assert line.startswith("texad: steel failed: 02_feature_extraction.ipynb, cell [")
    assert (
        f"DiskFullError: no room to write {folder / 'backbone.safetensors'}: the disk is full"
        in line
        and "make room" in line
    )
    assert "Traceback" not in batch.said and not leftovers(folder)
    assert_whole(folder)
    before = {
        name: (folder / name).stat().st_mtime_ns
        for name in ("images.csv", "notebooks/01_preprocessing.ipynb")
    }
    batch = Batch(steel, tmp_path)
    assert batch.end() == 0, batch.said
    assert {name: (folder / name).stat().st_mtime_ns for name in before} == before
    assert results(folder) == results(undisturbed)


# -- damage ----------------------------------------------------------------------------------------


def current(steel: Path, out: Path) -> list[bool]:
    run, data = Run(steel, "steel", out), datasets.load_category(steel, "steel")
    fingerprint = datasets.fingerprint(data)
    given = [
        {name: GIVEN[name] for name in GIVEN if name in parameters.defaults(stage)}
        for stage in STAGES
    ]
    return [
        jobs.is_current(run, stage, values, data, fingerprint)
        for stage, values in zip(STAGES, given, strict=True)
    ]


def job(steel: Path, out: Path, **more) -> jobs.Job:
    others = {name: GIVEN[name] for name in ("image_size", "steps", "hidden", "bottleneck")}
    return jobs.Job(str(steel), "steel", "random", str(out), 0, others, None, "steel", **more)


def change(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


DAMAGES = {
    "changed": change,
    "cut short": lambda file: os.truncate(file, file.stat().st_size - 1),
    "gone": Path.unlink,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_any_file_that_is_damaged_makes_its_stage_out_of_date(steel, copied, damage):
    folder = copied / "surfaces" / "steel"
    assert current(steel, copied) == [True] * 5
    files = {
        **{
            folder / name: i
            for i, stage in enumerate(STAGES)
            for name in (*FILES[stage], f"notebooks/{stage}.ipynb")
            if "*" not in name
        },
        **{file: 4 for part in ("figures", "pictures") for file in (folder / part).iterdir()},
    }
    assert {*files} == {
        file
        for file in folder.rglob("*")
        if file.is_file() and file.name not in ("run.json", ".lock")
    }
    for file, stage in files.items():
        saved = file.read_bytes()
        DAMAGES[damage](file)
        assert current(steel, copied) == [i != stage for i in range(5)], file
        file.write_bytes(saved)
    assert current(steel, copied) == [True] * 5


def test_what_is_damaged_is_made_again_and_the_rest_is_not(steel, undisturbed, copied):
    folder = copied / "surfaces" / "steel"
    change(folder / "scores.csv")
    (folder / "notebooks" / "03_autoencoder_training.ipynb").write_text("{")
    (folder / "maps" / ".0123abcd.test.npy").write_bytes(b"half")  # of a process that was killed
    features = (folder / "features" / "test.npy").stat().st_mtime_ns
    row = jobs.run_category(job(steel, copied), lambda stage, cells: None)
    assert row["error"] is None and results(folder) == results(undisturbed)
    assert (folder / "features" / "test.npy").stat().st_mtime_ns == features
    assert current(steel, copied) == [True] * 5 and not leftovers(folder)


@pytest.mark.parametrize("content", ["", '{"stages": ', "[]", '{"stages": "done"}', "\0" * 40])
def test_a_damaged_run_json_is_set_aside_and_said_and_the_run_is_made_again(
    steel, copied, content, monkeypatch, capfd
):
    folder = copied / "surfaces" / "steel"
    (folder / "run.json").write_text(content)
    executed = []
    monkeypatch.setattr(jobs, "_execute", lambda run, stage, *more: executed.append(stage))
    jobs.run_category(job(steel, copied), lambda stage, cells: None)
    assert executed == list(STAGES)
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line]
    assert f"{folder / 'run.json'} is damaged (" in line and "is now run.damaged.json" in line
    assert (folder / "run.damaged.json").read_text() == content and not (
        folder / "run.json"
    ).exists()


# -- kernels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("death", ["os._exit(3)", "os.kill(os.getpid(), 9)"])
def test_a_kernel_that_dies_is_reported_with_its_cell(steel, tmp_path, monkeypatch, death):
    notebook = nbformat.read(notebooks_folder() / f"{STAGES[0]}.ipynb", as_version=4)
    first = next(i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code")
    notebook.cells[first + 1 :] = [
        nbformat.v4.new_markdown_cell("# a"),
        nbformat.v4.new_code_cell(f"\nimport os  # and die\n{death}"),
    ]
    nbformat.write(notebook, tmp_path / f"{STAGES[0]}.ipynb")
    monkeypatch.setattr(jobs, "notebooks_folder", lambda: tmp_path)
    row = jobs.run_category(job(steel, tmp_path / "runs"), lambda stage, cells: None)
    assert row["error"] == (
        "01_preprocessing.ipynb, cell [3], which begins with 'import os  # and die': "
        "the kernel died, perhaps for lack of memory"
    )
