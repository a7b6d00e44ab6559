import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from texad.errors import DiskFullError
from texad.io.atomic import digests, remove_leftovers, replacing, sha256


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
        is_named = f"no room to write {file}" in str(error)
        is_short = error._render_traceback_() == [f"DiskFullError: {error}"]
        print(name, file.read_text(), is_named, is_short)
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


def test_a_full_disk_is_one_line_in_a_notebook():
    assert DiskFullError("no room")._render_traceback_() == ["DiskFullError: no room"]
