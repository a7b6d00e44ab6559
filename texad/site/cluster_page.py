"""The page on many machines: how a cluster is used, and what many categories would cost.

The costs are worked out from the runs that the book is made of.
"""

from dataclasses import dataclass
from math import ceil
from pathlib import Path
from statistics import mean

from texad.runs.run_folder import STAGES, STUDIES, FinishedRun
from texad.site import markdown

CATEGORIES = 10_000


@dataclass(frozen=True)
class Costs:
    """Mean costs of one category, on the machine that was measured.

    Attributes
    ----------
    n_measured : int
        Number of categories measured.
    images : float
        Images of a category, in all splits.
    seconds : dict of str to float
        Seconds of each stage, from its first line of code to its last.
    start_seconds : float
        Seconds to start the kernels and import the packages, for all stages together.
    threads : int
        Threads of a notebook.
    cores : int
        Cores of the machine.
    peak_mb : float or None
        The most memory of any notebook, in 10⁶ bytes; None if it was not measured.
    bytes : float
        Size of the run folder on disk.
    feature_bytes : float
        Size of the kept features, a part of `bytes`.
    """

    n_measured: int
    images: float
    seconds: dict[str, float]
    start_seconds: float
    threads: int
    cores: int
    peak_mb: float | None
    bytes: float
    feature_bytes: float

    @property
    def total_seconds(self) -> float:
        """Seconds from the start of a category's first notebook to the end of its last."""
        return sum(self.seconds.values()) + self.start_seconds

    @property
    def at_a_time(self) -> int:
        """Number of categories that one machine computes at the same time."""
        return max(1, self.cores // self.threads)

    def core_hours(self, n: int) -> float:
        """Hours that cores are kept busy by `n` categories."""
        return n * self.total_seconds * self.threads / 3600

    def rounds(self, n: int, machines: int) -> int:
        """Number of categories that the busiest worker computes, one after the other."""
        return ceil(n / (machines * self.at_a_time))

    def hours(self, n: int, machines: int) -> float:
        """Hours on the clock for `n` categories."""
        return self.rounds(n, machines) * self.total_seconds / 3600


def measure(runs: list[FinishedRun]) -> Costs | None:
    """Measure what the categories of finished runs cost.

    Parameters
    ----------
    runs : list of FinishedRun
        Runs that no batch has executed, or an older one, do not say on how many cores or of how
        many images; they are left out.

    Returns
    -------
    Costs or None
        None if no run is left.
    """
    measured = [run for run in runs if _is_measured(run.read())]
    if not measured:
        return None
    data = [run.read()["data"] for run in measured]
    stages = [run.read()["stages"] for run in measured]
    entries = [own[stage] for own in stages for stage in STAGES]
    peaks = [entry.get("peak_mb") for entry in entries]
    started = sum(entry["notebook_seconds"] - entry["seconds"] for entry in entries)
    return Costs(
        n_measured=len(measured),
        images=mean(own["n_train"] + own.get("n_calibration", 0) + own["n_test"] for own in data),
        seconds={stage: mean(own[stage]["seconds"] for own in stages) for stage in STAGES},
        start_seconds=started / len(measured),
        threads=max(entry["threads"] for entry in entries),
        cores=max(entry["cores"] for entry in entries),
        peak_mb=None if None in peaks else max(peaks),
        bytes=mean(_bytes(run.folder) for run in measured),
        feature_bytes=mean(_bytes(run.folder / "features") for run in measured),
    )


def page(runs: list[FinishedRun]) -> str:
    """Make the page in Markdown.

    Parameters
    ----------
    runs : list of FinishedRun
        The runs that the book is made of.
    """
    return markdown.render("beyond_one_machine", costs=measure(runs), n=CATEGORIES)


def _is_measured(record: dict) -> bool:
    """Does a run.json say how many images there were, and the time and cores of each stage?"""
    entries = [record.get("stages", {}).get(stage, {}) for stage in STAGES]
    known = ("notebook_seconds", "threads", "cores")
    return "data" in record and all(entry.get(name) for entry in entries for name in known)


def _bytes(folder: Path) -> int:
    """Size of the files in a folder that the five stages left."""
    files = [file for file in folder.rglob("*") if file.stem.split(".")[0] not in STUDIES]
    return sum(file.stat().st_size for file in files if file.is_file())
