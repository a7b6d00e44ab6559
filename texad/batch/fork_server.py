"""Kernels that start at once: forks of a process that has the libraries in memory already.

To start a kernel takes seconds, nearly all of them to import torch and its like, and a batch
starts five for each category. Here a server imports them once, and every kernel begins as a copy
of it: the libraries are there, and nothing else is. Only Linux copies a process safely.
"""

import multiprocessing
import os
import signal
import sys
import threading
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from typing import Any

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning import LocalProvisioner

# What the notebooks import and what takes long. Not pyplot and seaborn, which look for IPython when
# they are imported.
PRELOADED = [
    "torch",
    "torchvision.models",
    "pandas",
    "scipy.stats",
    "sklearn.metrics",
    "matplotlib.figure",
    "jsonschema",
    "ipykernel.kernelapp",
]
BACKEND = (
    "module://matplotlib_inline.backend_inline"  # a kernel's choice; matplotlib is there first
)


class ForkProvisioner(LocalProvisioner):
    """Jupyter's own way to look after a kernel's process, but for the way it starts."""

    async def launch_kernel(self, cmd: list[str], **options: Any) -> KernelConnectionInfo:
        if cmd[0] != sys.executable or "ipykernel_launcher" not in cmd:
            return await super().launch_kernel(cmd, **options)  # another Python or language
        start_server()
        arguments = cmd[cmd.index("ipykernel_launcher") + 1 :]
        # A lock stays open in the kernel. It travels as a connection, but nothing is sent over it.
        locks = [Connection(os.dup(lock)) for lock in options.get("pass_fds", ())]
        process = _Process(
            target=_be_kernel, args=(arguments, options.get("cwd"), dict(options["env"]), locks)
        )
        process.start()
        self.process = process  # type: ignore[assignment]  # Jupyter says Popen
        self.pid = self.pgid = process.pid
        return self.connection_info


class _Process(ForkServerProcess):
    """A process with the methods of `subprocess.Popen` that Jupyter calls."""

    stdin = stdout = stderr = None

    def poll(self) -> int | None:
        return self.exitcode

    def wait(self) -> int | None:
        self.join()
        return self.exitcode

    def send_signal(self, number: int) -> None:
        if self.pid is not None and self.exitcode is None:
            os.kill(self.pid, number)


def start_server() -> None:
    """Start the server that kernels are copies of, unless it runs; do not wait until it is ready.

    Ctrl-C reaches all processes of a terminal, but only the first may act on it: the server and its
    kernels never hear it.
    """
    forkserver.set_forkserver_preload(PRELOADED)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _be_kernel(
    arguments: list[str], folder: str | None, environment: dict[str, str], locks: list[Connection]
) -> None:
    import matplotlib
    import torch
    from ipykernel.kernelapp import IPKernelApp
    from threadpoolctl import threadpool_limits
    from tqdm import tqdm

    threading.Thread(target=_end_with_batch, daemon=True).start()
    os.setsid()  # a group of its own, as Jupyter expects: signals reach all that it has started
    os.environ.clear()
    os.environ.update(environment)
    if threads := int(environment.get("OMP_NUM_THREADS") or 0):  # the libraries read the server's
        torch.set_num_threads(threads)
        threadpool_limits(threads)
    matplotlib.rcParams["backend"] = environment.get("MPLBACKEND") or BACKEND
    tqdm.set_lock(threading.RLock())  # not of processes: a killed kernel would leave a semaphore
    if folder:
        os.chdir(folder)
    sys.argv = ["ipykernel_launcher", *arguments]
    # ipykernel ends a kernel whose parent, the server, has ended
    IPKernelApp.launch_instance([*arguments, f"--IPKernelApp.parent_handle={os.getppid()}"])


def _end_with_batch() -> None:
    """End this process with the batch: its notebook must not write for a batch that has ended."""
    batch = multiprocessing.parent_process()
    assert batch is not None  # another process has started this one
    wait([batch.sentinel])
    os._exit(1)
