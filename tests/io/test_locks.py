import fcntl
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from texad.io import locks
from texad.io.locks import HELD, LOCK, alone, is_held, leave, take


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
    script = (
        "import sys, time; from pathlib import Path; from texad.io.locks import take; "
        "print(take(Path(sys.argv[1])), flush=True); time.sleep(99)"
    )
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
    monkeypatch.setattr(locks, "WAIT_SECONDS", 0.02)
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


def test_a_folder_that_is_deleted_before_it_is_locked_is_not_taken(tmp_path, monkeypatch):
    folder, flock = tmp_path / "run", fcntl.flock

    def too_late(lock, how):
        (folder / LOCK).unlink()
        flock(lock, how)

    monkeypatch.setattr(fcntl, "flock", too_late)
    assert not take(folder) and not is_held(folder)
    monkeypatch.undo()
    assert take(folder)
    leave(folder)


def test_the_lock_of_a_folder_can_be_handed_on_while_it_is_held(tmp_path):
    assert locks.descriptor(tmp_path) is None
    assert take(tmp_path)
    assert os.path.samestat(os.fstat(locks.descriptor(tmp_path)), (tmp_path / LOCK).stat())
    leave(tmp_path)
    assert locks.descriptor(tmp_path) is None


def test_a_lock_file_is_there_while_it_is_held_and_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "WAIT_SECONDS", 0.02)
    file, order = tmp_path / "new" / "a.lock", []

    def second():
        with locks.locked(file):
            order.append("second")

    with locks.locked(file):
        assert file.exists() and locks.lock(file) is None
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.1)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"] and not file.exists()
