"""Memory and time of each stage as the number of training images grows, in `texad run` as users
start it.

Peak is the largest resident set of the process that ran the stage, from run.json. It counts the
libraries, too, and pages of mapped files. Nothing may grow with the number of images: more of them
must take no more time each, and no more memory.
"""

from pathlib import Path

from tqdm import tqdm

from benchmarks import material
from benchmarks.material import Options
from benchmarks.measure import Row
from texad.data import synthetic
from texad.io.json_files import read_json
from texad.runs.run_folder import STAGES

MEMORY_BAR, PEAK_BAR_MB, TIME_BAR = 1.1, 2000.0, 1.1
PARAMETERS = {"steps": 100}  # of the training, whose time does not depend on how many images it has


def run(options: Options) -> list[Row]:
    sizes = (6, 12) if options.quick else options.sizes
    runs = {size: one_run(options, size) for size in tqdm(sizes, desc="memory", unit="size")}
    return rows(runs)


def one_run(options: Options, n_train: int) -> dict:
    """Run texad on so many training images of synthetic leather.

    Returns
    -------
    dict
        `images`, how many there were in all, and `stages`: for each the `seconds` and `peak_mb`
        that run.json gives.
    """
    root = synthetic.write(
        options.work / f"memory-{n_train}",
        "leather",
        n_train=n_train,
        n_good=10,
        n_defective=10,
        size=64 if options.quick else 128,
        progress=True,
    ).parent
    parameters = PARAMETERS | (
        {"image_size": 64, "hidden": 32, "bottleneck": 8} if options.quick else {}
    )
    given = [word for name, value in parameters.items() for word in ("-p", name, value)]
    with material.folder(options) as folder:
        material.run_texad(
            "--dataset",
            root,
            "--category",
            "leather",
            "--weights",
            options.weights,
            "--jobs",
            1,
            "--out",
            folder,
            *given,
        )
        record = read_json(Path(folder) / root.name / "leather" / "run.json")
    images = sum(record["data"][name] for name in ("n_train", "n_calibration", "n_test"))
    return {
        "images": images,
        "stages": {
            stage: {name: record["stages"][stage][name] for name in ("seconds", "peak_mb")}
            for stage in STAGES
        },
    }


def rows(runs: dict[int, dict]) -> list[Row]:
    """Peak and time for each image of each stage: the largest size against the smallest.

    Parameters
    ----------
    runs : dict of int to dict
        As from `one_run`, by the number of training images.
    """
    small, large = min(runs), max(runs)
    against = f"{large:,} / {small:,} images"
    result = []
    for stage in STAGES:
        peak = {size: run["stages"][stage]["peak_mb"] for size, run in runs.items()}
        note = ", ".join(f"{size:,}: {value:.0f} MB" for size, value in peak.items())
        result.append(
            Row(
                "memory",
                f"{stage}: peak, {against}",
                peak[large] / peak[small],
                at_most=MEMORY_BAR,
                note=note,
            )
        )
    peaks = [entry["peak_mb"] for run in runs.values() for entry in run["stages"].values()]
    result.append(
        Row(
            "memory",
            "largest peak of all",
            max(peaks),
            "MB",
            at_most=PEAK_BAR_MB,
            details={"runs": {str(size): run for size, run in runs.items()}},
        )
    )
    for stage in STAGES:
        each = {
            size: 1e3 * run["stages"][stage]["seconds"] / run["images"]
            for size, run in runs.items()
        }
        note = ", ".join(f"{size:,}: {value:.1f} ms" for size, value in each.items())
        result.append(
            Row(
                "memory",
                f"{stage}: time for an image, {against}",
                each[large] / each[small],
                at_most=TIME_BAR,
                note=note,
            )
        )
    total = {
        size: sum(entry["seconds"] for entry in run["stages"].values()) / run["images"]
        for size, run in runs.items()
    }
    result.append(
        Row(
            "memory",
            f"all stages: time for an image, {against}",
            total[large] / total[small],
            at_most=TIME_BAR,
        )
    )
    return result
