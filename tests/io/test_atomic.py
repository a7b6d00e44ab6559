import fcntl
import hashlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from texad.errors import DiskFullError
from texad.io import atomic as files
from texad.io.atomic import (
    HELD,
    LOCK,
    alone,
    digests,
    is_held,
    leave,
    release,
    remove_leftovers,
    replacing,
    sha256,
    take,
)


def test_the_file_appears_when_the_block_ends(tmp_path):
    file = tmp_path / "new" / "a.txt"
    with replacing(file) as temporary:
        temporary.write_text("whole")
        assert not file.exists()
    assert file.read_text() == "whole"
    assert list(file.parent.iterdir()) == [file]


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("old")
    with pytest.raises(RuntimeError), replacing(file) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("umask", [0o002, 0o022, 0o077])
def test_who_may_read_a_new_file_the_system_says_and_not_its_writer(tmp_path, umask):
    before = os.umask(umask)
    try:
        (tmp_path / "plain").touch()
        with replacing(tmp_path / "private") as temporary:
            temporary.unlink()
            os.close(os.open(temporary, os.O_CREAT, 0o600))  # as some writers do
    finally:
        os.umask(before)
    assert (tmp_path / "private").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444])
def test_who_may_read_a_file_stays_when_it_is_replaced(tmp_path, mode):
    file = tmp_path / "a.txt"
    file.write_text("old")
    file.chmod(mode)
    with replacing(file) as temporary:
        temporary.write_text("new")
    assert file.read_text() == "new" and file.stat().st_mode & 0o777 == mode


def test_sha256_is_hashlibs(tmp_path):
    content = bytes(range(256)) * 10_000  # more than one block
    (tmp_path / "a").write_bytes(content)
    assert sha256(tmp_path / "a") == hashlib.sha256(content).hexdigest()


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(),
    reason="the system does not say how much memory is in use",
)
def test_a_released_array_takes_no_memory_and_can_be_read_again(tmp_path):
    def mapped_mb():
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssFile")) / 1024

    np.save(tmp_path / "a.npy", np.arange(5_000_000, dtype=np.float64))  # 40 MB
    array = np.load(tmp_path / "a.npy", mmap_mode="r").reshape(1000, 5000).T  # a view of a view
    before = mapped_mb()
    total = array.sum()
    assert mapped_mb() > before + 30
    release(array)
    assert mapped_mb() < before + 5
    assert array.sum() == total


def test_releasing_other_arrays_does_nothing(tmp_path):
    written = np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.float32, (1000,))
    written[:] = 7
    release(written)
    release(np.ones(3))
    assert (np.load(tmp_path / "a.npy") == 7).all()


def test_digests_know_a_file_by_its_name_and_many_by_a_pattern(tmp_path):
    for name in ("a.csv", "maps/1.jpg", "maps/2.jpg", "maps/.hidden.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    of = {name: hashlib.sha256(f"maps/{name}".encode()).hexdigest() for name in ("1.jpg", "2.jpg")}
    both = hashlib.sha256(f"{of['1.jpg']}  1.jpg\n{of['2.jpg']}  2.jpg\n".encode()).hexdigest()
    expected = {"a.csv": hashlib.sha256(b"a.csv").hexdigest(), "maps/*.jpg": both}
    assert digests(tmp_path, ["a.csv", "maps/*.jpg", "b.csv", "maps/*.png"]) == expected
    (tmp_path / "maps" / "2.jpg").rename(tmp_path / "maps" / "3.jpg")
    assert digests(tmp_path, ["maps/*.jpg"]) != {"maps/*.jpg": both}


FULL = """
import resource, sys
from pathlib import Path
import numpy as np, pandas as pd, torch
from matplotlib.figure import Figure
from PIL import Image
from texad.io.atomic import replacing, write_tensors
from texad.errors import DiskFullError

noise = np.random.default_rng(0).integers(0, 255, (300, 300, 3), dtype=np.uint8)
def npy(file):
    with file.open("wb") as stream:
        np.save(stream, noise)
writers = {
    "a.npy": npy,
    "a.json": lambda file: file.write_text("x" * 200_000),
    "a.csv": lambda file: pd.DataFrame(noise[0]).iloc[[0] * 9999].to_csv(file),
    "a.safetensors": None,
    "a.jpg": lambda file: Image.fromarray(noise).save(file, quality=100),
    "a.png": lambda file: Figure(figsize=(20, 20)).figimage(noise).figure.savefig(file),
}
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
for name, write in writers.items():
    file = Path(sys.argv[1]) / name
    file.write_text("old")
    try:
        if write is None:
            write_tensors(file, {"a": torch.zeros(50_000)}, {})
        else:
            with replacing(file) as temporary:
                write(temporary)
    except DiskFullError as error:
        print(name, file.read_text(), f"no room to write {file}" in str(error), error._render_traceback_() == [f"DiskFullError: {error}"])
print(sorted(file.name for file in Path(sys.argv[1]).iterdir()) == sorted(writers))
try:
    with replacing(Path(sys.argv[1]) / "a.npy"):
        raise OSError(2, "something else")
except OSError as error:
    print(type(error).__name__)
"""


def test_whoever_writes_where_no_room_is_left_gets_the_same_error_and_the_old_file_stays(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "script.py").write_text(FULL)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    result = subprocess.run(
        [sys.executable, tmp_path / "script.py", tmp_path / "full"],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert result.returncode == 0, result.stderr
    written = [
        f"a.{kind} old True True" for kind in ("npy", "json", "csv", "safetensors", "jpg", "png")
    ]
    assert result.stdout.splitlines() == [*written, "True", "FileNotFoundError"]


# -- locks -----------------------------------------------------------------------------------------


def hold(folder: Path) -> int:
    """Hold the lock as another process would."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def test_a_folder_is_taken_once_and_free_again_when_left(tmp_path):
    folder = tmp_path / "run"
    assert take(folder) and is_held(folder)
    assert not take(folder)
    with pytest.raises(BlockingIOError):
        fcntl.flock(os.open(folder / LOCK, os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB)
    leave(folder)
    leave(folder)
    assert not is_held(folder)
    other = hold(folder)
    assert not take(folder) and not is_held(folder)
    os.close(other)
    assert take(folder)
    leave(folder)


def test_a_killed_process_holds_nothing(tmp_path):
    script = "import sys, time; from pathlib import Path; from texad.io.atomic import take; print(take(Path(sys.argv[1])), flush=True); time.sleep(99)"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        [sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout.readline() == "True\n"
    assert not take(tmp_path)
    process.kill()
    process.wait()
    assert take(tmp_path)
    leave(tmp_path)


def test_who_finds_a_folder_taken_says_so_and_waits(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "WAIT_SECONDS", 0.02)
    lock, waited = hold(tmp_path), []
    threading.Timer(0.3, os.close, [lock]).start()
    began = time.monotonic()
    with alone(tmp_path, waited.append):
        assert is_held(tmp_path) and 0.25 < time.monotonic() - began < 10
    assert waited == list(range(len(waited))) and len(waited) > 1 and not is_held(tmp_path)
    with pytest.raises(ZeroDivisionError), alone(tmp_path, waited.clear):
        raise ZeroDivisionError
    assert waited and take(tmp_path)
    leave(tmp_path)


def test_who_waits_can_be_told_not_to(tmp_path):
    lock = hold(tmp_path)
    with pytest.raises(ZeroDivisionError), alone(tmp_path, lambda waited: 1 / 0):
        pytest.fail("somebody else holds the folder")
    assert not is_held(tmp_path)
    os.close(lock)


def test_the_kernels_of_a_batch_may_write_into_the_folder_that_it_holds_and_no_other(
    tmp_path, monkeypatch
):
    monkeypatch.setenv(HELD, str(tmp_path / "mine"))
    assert is_held(tmp_path / "mine") and not is_held(tmp_path / "other")


def test_where_the_file_system_knows_no_locks_the_work_goes_on(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    assert take(tmp_path) and is_held(tmp_path)
    leave(tmp_path)
    monkeypatch.setattr(files, "fcntl", None)  # as on Windows
    assert take(tmp_path)
    leave(tmp_path)


def test_who_takes_a_folder_removes_what_killed_processes_left_half_written(tmp_path):
    (tmp_path / "maps").mkdir()
    kept = [
        tmp_path / name for name in (".hidden", "maps/a.npy", ".0123abcd", "maps/.0123abcX.a.npy")
    ]
    left = [tmp_path / name for name in (".0123abcd.run.json", "maps/.ffffffff.test.npy")]
    for file in kept + left:
        file.write_text("half")
    lock = hold(tmp_path)
    assert not take(tmp_path) and all(
        file.exists() for file in left
    )  # they are another's, who may be writing them
    os.close(lock)
    assert take(tmp_path)
    leave(tmp_path)
    assert all(file.exists() for file in kept) and not any(file.exists() for file in left)


def test_where_others_may_be_writing_only_old_leftovers_are_removed(tmp_path):
    old, new, below = (tmp_path / name for name in (".00000001.a", ".00000002.a", "b/.00000003.a"))
    for file in (old, new, below):
        file.parent.mkdir(exist_ok=True)
        file.write_text("")
    os.utime(old, (0, 0))
    os.utime(below, (0, 0))
    remove_leftovers(tmp_path, older_than=60)
    assert not old.exists() and new.exists() and below.exists()


def test_a_folder_that_is_named_like_a_leftover_stays(tmp_path):
    (tmp_path / ".00000001.a").mkdir()
    (tmp_path / ".00000002.a").write_text("half")
    remove_leftovers(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [".00000001.a"]


def test_a_folder_that_is_deleted_before_it_is_locked_is_not_taken(tmp_path, monkeypatch):
    folder, flock = tmp_path / "run", fcntl.flock

    def too_late(lock, how):
        (folder / LOCK).unlink()
        flock(lock, how)

    monkeypatch.setattr(files.fcntl, "flock", too_late)
    assert not take(folder) and not is_held(folder)
    monkeypatch.undo()
    assert take(folder)
    leave(folder)


def test_the_lock_of_a_folder_can_be_handed_on_while_it_is_held(tmp_path):
    assert files.descriptor(tmp_path) is None
    assert take(tmp_path)
    assert os.path.samestat(os.fstat(files.descriptor(tmp_path)), (tmp_path / LOCK).stat())
    leave(tmp_path)
    assert files.descriptor(tmp_path) is None


def test_a_full_disk_is_one_line_in_a_notebook():
    assert DiskFullError("no room")._render_traceback_() == ["DiskFullError: no room"]
