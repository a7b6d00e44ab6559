from pathlib import Path

import numpy as np
import pytest

from texad.io.arrays import release


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
