"""The kernels of a batch: one for each notebook, so that none can leave anything to the next.

On Linux they are forks of a server that has imported the libraries (see
`texad.batch.fork_server`). Elsewhere, and in a worker of Dask that may start no process, Jupyter
starts them as usual.

A kernel shares the lock of the run folder with the process that started it, so that the folder is
not free before both have ended.
"""

import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jupyter_client import AsyncKernelManager

from texad.io.locks import HELD, descriptor

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class KernelManager(AsyncKernelManager):
    """Starts and ends the kernel of one notebook; papermill takes any manager.

    Attributes
    ----------
    folder : Path or None
        A run folder that this process holds, and that the kernel may write into.
    threads : int or None
        That the kernel may use; None leaves it to the environment.
    given_up : callable
        Asked about each second while a cell runs. If it says yes, the kernel is killed.
    """

    folder: Path | None = None
    threads: int | None = None
    given_up: Callable[[], bool] = staticmethod(lambda: False)

    async def _async_pre_start_kernel(self, **options: Any) -> tuple[list[str], dict[str, Any]]:
        options["env"] = dict(options.get("env") or os.environ)
        if self.threads:
            options["env"] |= dict.fromkeys(THREADS, str(self.threads))
        if self.folder is not None:
            options["env"][HELD] = str(self.folder)
            if (lock := descriptor(self.folder)) is not None and os.name == "posix":
                options["pass_fds"] = (lock,)
        if sys.platform == "linux" and not multiprocessing.current_process().daemon:
            from texad.batch.fork_server import ForkProvisioner

            self.provisioner = ForkProvisioner(
                parent=self, kernel_id=self.kernel_id, kernel_spec=self.kernel_spec
            )
        return await super()._async_pre_start_kernel(**options)

    async def _async_is_alive(self) -> bool:
        """Whether the kernel runs; one that is given up does not run any more."""
        if self.provisioner is not None and self.given_up():
            await self.provisioner.kill()
            await self.provisioner.wait()
        return await super()._async_is_alive()

    async def _async_interrupt_kernel(self) -> None:
        """Do nothing: Jupyter interrupts a kernel before it asks it to end.

        A kernel that has answered its last cell, but is not quite done with it, says then that it
        was interrupted. A batch has no other use for interruptions.
        """
