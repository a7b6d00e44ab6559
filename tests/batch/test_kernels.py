"""Kernels that are copies of a server begin alike, and with nothing but the libraries."""

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="elsewhere kernels start as usual"),
]

SCRIPT = """
import asyncio, multiprocessing, os, sys
from texad.batch.kernels import KernelManager

async def run(*cells):
    manager = KernelManager(kernel_name="python3", transport="ipc", ip=sys.argv[1] + "/kernel")
    await manager.start_kernel(cwd=sys.argv[1], env=os.environ | {"GIVEN": "yes"})
    client = manager.client()
    client.start_channels()
    await client.wait_for_ready(timeout=60)
    for cell in cells:
        print(manager.provisioner.pid, flush=True)
        await client.execute_interactive(cell, timeout=60)
    dead = not await manager.is_alive()
    await manager.shutdown_kernel()
    print("dead" if dead else "alive")

if __name__ == "__main__":
    multiprocessing.current_process()._config["daemon"] = sys.argv[2] == "plain"
    for threads in (1, 3):
        os.environ["OMP_NUM_THREADS"] = str(threads)
        asyncio.run(run(CELLS))
"""


def script(folder: Path, *cells: str, kind: str = "fork") -> subprocess.Popen:
    """A process that runs the cells in a kernel, and then in another one."""
    file = folder / "script.py"
    file.write_text(SCRIPT.replace("CELLS", ", ".join(map(repr, cells))))
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(
        [sys.executable, "-u", file, folder, kind],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


def test_each_kernel_has_the_libraries_and_nothing_of_the_one_before(tmp_path):
    cell = """
        import os, sys
        torch = sys.modules["torch"]
        print("there:", "sklearn.metrics" in sys.modules, hasattr(torch, "left"), "x" in globals())
        torch.left = x = 1
        print("in:", os.getcwd(), os.environ["GIVEN"], os.getpgid(0) == os.getpid())
        import matplotlib.pyplot as plt
    """
    shows = """
        figure = plt.plot([1, 2])[0].figure
        formats = sorted(get_ipython().display_formatter.format(figure)[0])
        print("shows:", formats, plt.get_backend(), plt.isinteractive())
    """
    process = script(tmp_path, textwrap.dedent(cell), textwrap.dedent(shows))
    lines = process.communicate(timeout=120)[0].splitlines()
    assert process.returncode == 0
    first, second = lines[: len(lines) // 2], lines[len(lines) // 2 :]
    assert first[0] != second[0] and [line for line in first if line != first[0]] == [
        line for line in second if line != second[0]
    ]
    assert first[1] == "there: True False False"
    assert first[2] == f"in: {tmp_path} yes True"
    assert (
        first[4]
        == "shows: ['image/png', 'text/plain'] module://matplotlib_inline.backend_inline True"
    )  # as in any kernel
    assert first[-1].endswith("alive")


def test_each_kernel_has_its_own_number_of_threads(tmp_path):
    cell = """
        import torch, numpy, threadpoolctl
        pools = {pool["num_threads"] for pool in threadpoolctl.threadpool_info()}
        print(torch.get_num_threads(), pools)
    """
    lines = script(tmp_path, textwrap.dedent(cell)).communicate(timeout=120)[0].splitlines()
    assert lines[1] == "1 {1}" and lines[4] == "3 {3}"


def test_a_kernel_ends_with_the_process_that_started_it(tmp_path):
    process = script(tmp_path, "import time; print('up', flush=True); time.sleep(60)")
    pid = int(process.stdout.readline())
    assert process.stdout.readline() == "up\n" and Path(f"/proc/{pid}").exists()
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while (
        Path(f"/proc/{pid}").exists()
        and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]
    ):
        assert time.monotonic() < deadline, "the kernel lives on"
        time.sleep(0.1)


@pytest.mark.parametrize("kind", ["fork", "plain"])
def test_a_kernel_is_not_interrupted_before_it_is_shut_down(tmp_path, kind):
    cell = "import signal; _ = signal.signal(signal.SIGINT, lambda *_: open('interrupted', 'w'))"
    process = script(tmp_path, cell, kind=kind)
    assert process.communicate(timeout=120)[0].splitlines()[1::2] == ["alive", "alive"]
    assert not (tmp_path / "interrupted").exists()
