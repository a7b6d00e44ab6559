"""The page on many machines: how a cluster is used, and what many categories would cost.

The costs are worked out from the runs that the book is made of.
"""

from pathlib import Path
from statistics import mean

from texad.runs.run_folder import STAGES, STUDIES, FinishedRun
from texad.site import markdown

CATEGORIES = 10_000


def measure(runs: list[FinishedRun]) -> dict | None:
    """Measure what one category of finished runs costs on average, on the machine they ran on.

    Parameters
    ----------
    runs : list of FinishedRun
        Runs that no batch has executed, or an older one, do not say on how many cores or of how
        many images; they are left out.

    Returns
    -------
    dict or None
        `n_measured`, the number of categories; `images` of a category, in all splits; `seconds` of
        each stage, from its first line of code to its last; `start_seconds` to start the kernels
        and import the packages, for all stages together; `total_seconds`, the sum of these;
        `threads` of a notebook; `cores` of the machine; `at_a_time`, the number of categories that
        one machine computes at the same time; `peak_mb`, the most memory of any notebook in 10⁶
        bytes, None if it was not measured; `bytes` of the run folder on disk, and `feature_bytes`
        of the kept features in it. None if no run is left.
    """
    measured = [run for run in runs if _is_measured(run.read())]
    if not measured:
        return None
    data = [run.read()["data"] for run in measured]
    stages = [run.read()["stages"] for run in measured]
    entries = [own[stage] for own in stages for stage in STAGES]
    seconds = {stage: mean(own[stage]["seconds"] for own in stages) for stage in STAGES}
    in_all = sum(entry["notebook_seconds"] for entry in entries) / len(measured)
    threads = max(entry["threads"] for entry in entries)
    cores = max(entry["cores"] for entry in entries)
    peaks = [entry.get("peak_mb") for entry in entries]
    return {
        "n_measured": len(measured),
        "images": mean(
            own["n_train"] + own.get("n_calibration", 0) + own["n_test"] for own in data
        ),
        "seconds": seconds,
        "start_seconds": in_all - sum(seconds.values()),
        "total_seconds": in_all,
        "threads": threads,
        "cores": cores,
        "at_a_time": max(1, cores // threads),
        "peak_mb": None if None in peaks else max(peaks),
        "bytes": mean(_bytes(run.folder) for run in measured),
        "feature_bytes": mean(_bytes(run.folder / "features") for run in measured),
    }


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
    return sum(
        file.stat().st_size
        for file in folder.rglob("*")
        if file.is_file() and file.stem.split(".")[0] not in STUDIES
    )
