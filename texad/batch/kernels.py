"""Kernels that start at once: forks of a process that has the libraries in memory already.

Each notebook of a batch runs in a kernel of its own, so that none can leave anything to the next. To start one takes seconds, nearly all of them to
import torch and its like, and a batch starts five for each category. Here a server imports them once, and every kernel of the batch begins as a
copy of it: the libraries are there, and nothing else is. Only Linux copies a process safely, and a worker of Dask may start none; there, kernels start
as usual.

A kernel shares the lock of the run folder with the process that started it, so that the folder is not free before both have ended.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import wait as wait_for
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

from jupyter_client import AsyncKernelManager
from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning import LocalProvisioner

from texad.io.locks import HELD, descriptor

# What the notebooks import and what takes long. Not pyplot and seaborn, which look for IPython when they are imported.
PRELOADED = [
    "torch",
    "torchvision.models",
    "pandas",
    "scipy.stats",
    "sklearn.metrics",
    "matplotlib.figure",
    "ipykernel.kernelapp",
]
BACKEND = "module://matplotlib_inline.backend_inline"  # what a kernel chooses, but here matplotlib comes before the kernel
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class ForkedKernelManager(AsyncKernelManager):
    """Starts a notebook's kernel as a copy of the server; for papermill, which takes any manager."""

    held: Path | None = None  # a run folder that this process holds, and the kernel may write into
    threads: int | None = None  # that the kernel may use; None leaves it to the environment

    async def _async_pre_start_kernel(self, **options: Any) -> tuple[list[str], dict[str, Any]]:
        options["env"] = dict(options.get("env") or os.environ) | (
            dict.fromkeys(THREADS, str(self.threads)) if self.threads else {}
        )
        if self.held is not None:
            options["env"][HELD] = str(self.held)
            if (lock := descriptor(self.held)) is not None and os.name == "posix":
                options["pass_fds"] = (lock,)
        if (
            self.provisioner is None
            and sys.platform == "linux"
            and not multiprocessing.current_process().daemon
        ):
            self.provisioner = ForkProvisioner(
                parent=self, kernel_id=self.kernel_id, kernel_spec=self.kernel_spec
            )
        return await super()._async_pre_start_kernel(**options)

    def end(self) -> None:
        """Kill the kernel, at once and from any thread; nothing if it does not run."""
        if (process := getattr(self.provisioner, "process", None)) is not None:
            process.kill()


class ForkProvisioner(LocalProvisioner):
    """Jupyter's own way to look after a kernel's process, but for the way it starts."""

    async def launch_kernel(self, cmd: list[str], **options: Any) -> KernelConnectionInfo:
        if (
            cmd[0] != sys.executable or "ipykernel_launcher" not in cmd
        ):  # another Python, or another language
            return await super().launch_kernel(cmd, **options)
        _start_server()
        context = multiprocessing.get_context("forkserver")
        arguments = cmd[cmd.index("ipykernel_launcher") + 1 :]
        shared = [_Shared(lock) for lock in options.get("pass_fds", ())]
        process = _Process(
            context.Process(
                target=_be_kernel,
                args=(arguments, options.get("cwd"), dict(options["env"]), shared),
            )
        )
        self.process = process  # type: ignore[assignment]  # Jupyter says Popen, and uses no more of it than this has
        self.pid = self.pgid = process.pid
        return self.connection_info


def _start_server() -> None:
    """Start the server that kernels are copies of, unless it runs."""
    from multiprocessing import forkserver

    forkserver.set_forkserver_preload(PRELOADED)
    before = signal.pthread_sigmask(
        signal.SIG_BLOCK, {signal.SIGINT}
    )  # Ctrl-C reaches all processes of a terminal, and only the first may act on it
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Process:
    """What Jupyter expects of a process, which is not what multiprocessing calls it."""

    stdin = stdout = stderr = None

    def __init__(self, process: BaseProcess):
        self._process = process
        process.start()
        assert process.pid is not None  # it has started
        self.pid = process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int | None:
        self._process.join(timeout)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class _Shared:
    """An open file that stays open in the kernel: what arrives there is its number."""

    def __init__(self, number: int):
        self._number = number

    def __reduce__(self) -> tuple[Callable, tuple]:
        return _received, (DupFd(self._number),)


def _received(duplicate: Any) -> int:
    return duplicate.detach()


def _be_kernel(
    arguments: list[str], folder: str | None, environment: dict[str, str], shared: list[int]
) -> None:
    import matplotlib
    import torch
    from ipykernel.kernelapp import IPKernelApp
    from threadpoolctl import threadpool_limits

    end_with_parent()
    os.setsid()  # a group of its own, as Jupyter expects: signals reach the kernel and all that it has started
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # one that came before was for the batch
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # the server hears none
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environment)
    if threads := int(
        environment.get("OMP_NUM_THREADS") or 0
    ):  # the libraries have read the server's
        torch.set_num_threads(threads)
        threadpool_limits(threads)
    matplotlib.rcParams["backend"] = environment.get("MPLBACKEND") or BACKEND
    if folder:
        os.chdir(folder)
    sys.argv = ["ipykernel_launcher", *arguments]
    IPKernelApp.launch_instance([*arguments, f"--IPKernelApp.parent_handle={os.getppid()}"])


def end_with_parent() -> None:
    """End this process when the one that asked for it has ended: its notebook must not write into a folder that the next batch is filling."""

    parent = multiprocessing.parent_process()
    assert parent is not None  # another process has started this one

    def wait() -> None:
        wait_for([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
