"""Seconds, ratios, bars, and the table they make.

Two things are compared by running them in turn, round after round: what else the machine does then
slows both alike. The ratio of each round is taken, and the median of the rounds is reported, so
that one disturbed round does not count.
"""

import datetime
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes
    ----------
    benchmark : str
        The name it is picked by.
    what : str
        What is measured, with "/" between the two sides of a ratio.
    value : float or None
        None where it was skipped; `note` says why.
    unit : str
        "x" for a ratio.
    at_least, at_most : float or None
        The acceptance bar; both None where there is none.
    more_than : bool
        The other side was stopped before it had finished, so the true value is larger than `value`.
    note : str
        For the reader of the table.
    details : dict
        What the value was computed from, for the JSON file.
    """

    benchmark: str
    what: str
    value: float | None
    unit: str = "x"
    at_least: float | None = None
    at_most: float | None = None
    more_than: bool = False
    note: str = ""
    details: dict = field(default_factory=dict)

    @property
    def bar(self) -> str:
        """The acceptance bar in words; empty where there is none."""
        if self.at_least is not None:
            return f">= {self.at_least:.4g}"
        return "" if self.at_most is None else f"<= {self.at_most:.4g}"

    @property
    def holds(self) -> bool | None:
        """Does the value keep the bar? None where there is no bar, no value, or it was stopped too
        early to know.
        """
        if self.value is None or not self.bar:
            return None
        if self.at_least is not None:
            return True if self.value >= self.at_least else None if self.more_than else False
        return False if self.value > self.at_most else None if self.more_than else True

    @property
    def shown(self) -> str:
        """The value as the table shows it."""
        if self.value is None:
            return "-"
        return (
            f"{'> ' if self.more_than else ''}{self.value:.3g}"
            if abs(self.value) < 1000
            else f"{self.value:.0f}"
        )

    def as_json(self) -> dict:
        """All of it, with what the table shows of bar and value."""
        return {
            "what": self.what,
            "value": self.value,
            "unit": self.unit,
            "more_than": self.more_than,
            "shown": self.shown,
            "bar": self.bar,
            "holds": self.holds,
            "note": self.note,
            "details": self.details,
        }


def table(rows: list[Row]) -> str:
    """The rows as a table for the terminal."""
    words = {True: "yes", False: "NO", None: ""}
    lines = [("benchmark", "what", "value", "", "bar", "holds", "")]
    lines += [
        (row.benchmark, row.what, row.shown, row.unit, row.bar, words[row.holds], row.note)
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    right = (2,)  # numbers
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def seconds_in_turn(
    actions: dict[str, Callable[[], object]], repeats: int, description: str
) -> dict[str, np.ndarray]:
    """How long each action takes, all of them in every round, after a round that does not count.

    Every second round goes through them backwards, so that none gains from always coming after the
    same other.

    Parameters
    ----------
    actions : dict of str to callable
    repeats : int
        Rounds that count.
    description : str
        For the progress bar.

    Returns
    -------
    dict of str to ndarray, float64, shape (repeats,)
    """
    seconds = {name: [] for name in actions}
    for turn in tqdm(range(repeats + 1), desc=description, unit="round"):
        for name in list(actions)[:: 1 if turn % 2 else -1]:
            started = time.perf_counter()
            actions[name]()
            if torch.cuda.is_available():
                torch.cuda.synchronize()  # the graphics processor works on while Python goes on
            elapsed = time.perf_counter() - started
            if turn:  # the first round warms caches and lets libraries choose their kernels
                seconds[name].append(elapsed)
    return {name: np.array(values) for name, values in seconds.items()}


def median(values) -> float:
    return float(np.median(values))


def spread(values) -> dict[str, float]:
    """Median, smallest and largest, and all of them, for the JSON file."""
    values = np.asarray(values, dtype=float)
    return {
        "median": median(values),
        "min": float(values.min()),
        "max": float(values.max()),
        "all": [round(float(value), 6) for value in values],
    }


def machine() -> dict:
    """What the numbers were measured on: no name of the computer, no path."""
    memory = (
        os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None
    )
    return {
        "cpu": _cpu(),
        "cores": cores(),
        "memory_gb": memory and round(memory / 1e9, 1),
        "system": platform.system(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch_threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "versions": {
            name: version(name) for name in ("texad", "torch", "torchvision", "numpy", "pillow")
        }
        | {"python": platform.python_version()},
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    }


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")),
        platform.processor(),
    )
