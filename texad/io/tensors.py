"""Files of tensors: reading them, and saying in one line that one is damaged or something else."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import safe_open

from texad.errors import printable


def read_tensors(file: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read the tensors of a safetensors file, on the CPU, and its metadata."""
    with safe_open(file, framework="pt") as stored:
        return {name: stored.get_tensor(name) for name in stored.keys()}, stored.metadata() or {}


@contextmanager
def refusing(problem: str, advice: str) -> Iterator[None]:
    """Turn any error of the block, such as a damaged file makes, into a ValueError of one line.

    Parameters
    ----------
    problem : str
        What the file is not; the error's own first line follows.
    advice : str
        The way out.

    Examples
    --------
    >>> with refusing("a.safetensors is no backbone", "make it again"):
    ...     {}["weight"]
    Traceback (most recent call last):
    ValueError: a.safetensors is no backbone ('weight'); make it again
    """
    try:
        yield
    except Exception as error:
        reason = printable((str(error).splitlines() or [type(error).__name__])[0])
        raise ValueError(f"{problem} ({reason}); {advice}") from error
