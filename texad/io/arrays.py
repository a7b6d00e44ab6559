"""Arrays on disk that take no memory."""

import mmap

import numpy as np


def release(array: np.ndarray) -> None:
    """Give back the memory of an array that is mapped from a file.

    The system counts all that was read of such an array as memory of the process, and so would a
    limit. What is read of it afterwards comes from the file again. Other arrays are left alone.
    """
    base: object = array
    while base is not None and not isinstance(base, mmap.mmap):
        base = getattr(base, "base", None)
    # Windows has no such call.
    if base is not None and not array.flags.writeable and hasattr(base, "madvise"):
        base.madvise(mmap.MADV_DONTNEED)
