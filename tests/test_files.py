import hashlib
from pathlib import Path

import numpy as np
import pytest

from texad.files import release, replacing, sha256


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


def test_sha256_is_hashlibs(tmp_path):
    content = bytes(range(256)) * 10_000  # more than one block
    (tmp_path / "a").write_bytes(content)
    assert sha256(tmp_path / "a") == hashlib.sha256(content).hexdigest()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not say how much memory is in use")
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
