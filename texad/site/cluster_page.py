"""The page on many machines: how a cluster is used, and what many categories would cost, worked out from the runs that the book is made of."""

from dataclasses import dataclass
from math import ceil
from statistics import mean

from texad.runs.run_folder import STAGES, STUDIES, FinishedRun
from texad.site import markdown

CATEGORIES = 10_000
MACHINES = (1, 10, 100)

INTRODUCTION = """\
Five categories are the work of one machine. A factory that makes ten thousand kinds of surface has ten thousand categories, and one machine would be busy with them
for a long time. How long, and what changes with more machines? This page shows how to use them, and then works out the cost from what was measured when this copy of
the book was made.

## One category is one task

The detector of one category never looks at another category: it learns from its own good images and judges its own test images. So categories can be computed in any
order, at the same time, on different machines. Such work is called *embarrassingly parallel*: the machines need not talk to each other, and twice as many are done in
half the time. That is why a whole category, with its five chapters, is one task. Smaller tasks, such as a chapter or an image, would have to send their features from
machine to machine; a category's features never leave the folder that they were written to."""

CLUSTER = """\
## Who does what

A {term}`cluster` is a group of machines that work for one user. [Dask](https://docs.dask.org) shares out the work among them. It has three roles, each a process:

- the **client** is the command that you type. It lists the tasks, shows the progress and writes the summary;
- the {term}`scheduler` knows all tasks and all workers, and decides who does what;
- a {term}`worker` takes a task, runs the five notebooks of its category, and takes the next."""

PICTURE = (
    "../images/cluster.svg",
    "Only names and progress go through the scheduler. Images and results go through the shared folder.",
    "Three columns. At the left the client. In the middle the scheduler, with arrows to three workers at the right. Below all of them a shared folder with the data, the "
    "weights and the runs; thick arrows join it with each worker, a thin one with the client. The third worker is crossed out, and a dashed arrow leads from it to the second.",
)

COMMANDS = """\
*What to look for:* the two kinds of arrows. Thin ones carry a few bytes, thick ones carry images and features, and no thick arrow passes the scheduler.

Every machine needs the same version of `texad`, installed with `pip install 'texad[cluster]'` (in a checkout, `pip install -e '.[cluster]'`). Then start one scheduler,
which prints its address:

```
dask scheduler
```

On each machine that is to work, start one worker for each core. The address is an example; take the one that was printed:

```
dask worker tcp://192.168.0.10:8786 --nworkers -1 --nthreads 1
```

And on any machine, type the command that you know, with the address:

```
python -m texad run --dataset /shared/surfaces --out /shared/runs --weights /shared/resnet50.pth \\
    --scheduler tcp://192.168.0.10:8786
```

The same code runs with and without `--scheduler`; only the pool of workers is another one. The processes of a Dask cluster trust each other and everyone who can reach
them, so keep them on a network of your own, or use [Dask with TLS](https://distributed.dask.org/en/stable/tls.html).

## The shared folder

The data set, the file of weights and the folder of the runs must lie on a {term}`shared file system`, such as NFS or Lustre, that *every* machine sees *under the same
path*. Before anything runs, each worker is asked whether it sees the folders, may write there, has the same weights, and has the same code. If not, the command ends
with one line that names the worker and what it lacks. So start the workers first: one that joins later is given work, too, but is not asked.

How many threads a notebook may use is decided where the worker is started, by the variable `OMP_NUM_THREADS`. If it is not set, `dask worker` sets it to 1, which goes
well with a worker for each core.

## When a worker dies

Machines fail, and a machine that is borrowed may be taken away. The scheduler notices, and gives the worker's task to another one. That one looks into the run folder, where
`run.json` says which stages are done, and goes on with the first that is not. So what is lost is the stage that was running, and no more. A task that has cost four
workers their lives is given up and reported as failed, so that one bad category cannot end them all.

Two writers in one folder would be worse than none. So the notebook of a worker that died ends by itself within about a second, and whoever takes over waits for longer
than that. If you stop the command with Ctrl-C, the workers stop their notebooks too; the same command goes on later.

## Sweeps

How much of a result is chance? Would a wider {term}`bottleneck` be better? Such questions need many runs. Give several values, with commas between:

```
python -m texad run --seed 0,1,2 -p bottleneck 64,256
```

This is a {term}`sweep`: every combination becomes a run of its own, in a folder that is named by it, such as `runs/seed=0,bottleneck=64`. All of them share one pool of
workers, here or on a cluster. At the end `runs/sweep.csv` has a row for each combination and category, and the command prints the mean over the seeds, with the lowest and the
highest value."""

LEFT_OUT = """\
## What the estimate leaves out

- **The shared folder.** All workers read and write there at the same time. One disk serves a few machines well and a hundred badly; then the workers wait, and the hours grow.
- **Unequal categories.** The mean hides that some categories have more images, or larger ones. The last task to end decides when all is done.
- **The worker itself.** The memory counts the notebook, which does the computing. The process that starts it has loaded PyTorch, too.
- **The images.** The disk counts what a run leaves, not the data set.
- **Other machines.** All hours are those of the machine that made this book, with as many notebooks at a time as it ran then. Only a measurement tells you about yours:
  run five categories on it and look at this page again.
- **Repeated work** after a failure, the start of the cluster, and the rest of the machine's work."""


@dataclass(frozen=True)
class Costs:
    """What one category costs on average, on the machine that was measured.

    Attributes
    ----------
    n_measured : int
        Categories.
    images : float
        Of a category, in all splits.
    seconds : dict of str to float
        Of each stage, from its first line of code to its last.
    start_seconds : float
        Of all stages together: kernels and imports.
    threads : int
        Of a notebook.
    cores : int
        Of the machine.
    peak_mb : float or None
        The most memory of any notebook, in 10⁶ bytes; None if it was not measured.
    bytes : float
        On disk, all of the run folder.
    feature_bytes : float
        Of these, the kept features.
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
    def seconds_in_all(self) -> float:
        """Of a category, from the start of its first notebook to the end of its last."""
        return sum(self.seconds.values()) + self.start_seconds

    @property
    def at_a_time(self) -> int:
        """Categories at a time on one machine."""
        return max(1, self.cores // self.threads)

    def core_hours(self, n: int) -> float:
        """Hours of one core for `n` categories: cores that are kept busy, times hours."""
        return n * self.seconds_in_all * self.threads / 3600

    def hours(self, n: int, machines: int) -> float:
        """Hours on the clock for `n` categories: as many rounds as it takes when each worker does one category after the other."""
        return ceil(n / (machines * self.at_a_time)) * self.seconds_in_all / 3600


def measure(runs: list[FinishedRun]) -> Costs | None:
    """What the categories of finished runs cost.

    Parameters
    ----------
    runs : list of FinishedRun
        Those that no batch has executed, or an older one, do not say on how many cores or of how many images; they are left out.

    Returns
    -------
    Costs or None
        None if no run is left.
    """
    records = [(run, run.read()) for run in runs]
    records = [(run, record) for run, record in records if _is_measured(record)]
    if not records:
        return None
    by_run = [[record["stages"][stage] for stage in STAGES] for _, record in records]
    every = [entry for own in by_run for entry in own]
    peaks = [entry.get("peak_mb") for entry in every]
    sizes = [_sizes(run) for run, _ in records]
    return Costs(
        n_measured=len(records),
        images=mean(
            sum(record["data"].get(name, 0) for name in ("n_train", "n_calibration", "n_test"))
            for _, record in records
        ),
        seconds={
            stage: mean(own[i]["seconds"] for own in by_run) for i, stage in enumerate(STAGES)
        },
        start_seconds=mean(
            sum(entry["notebook_seconds"] - entry["seconds"] for entry in own) for own in by_run
        ),
        threads=max(entry["threads"] for entry in every),
        cores=max(entry["cores"] for entry in every),
        peak_mb=None if None in peaks else max(peaks),
        bytes=mean(sum(size) for size in sizes),
        feature_bytes=mean(features for features, _ in sizes),
    )


def page(runs: list[FinishedRun]) -> str:
    """The page in Markdown.

    Parameters
    ----------
    runs : list of FinishedRun
        Those that the book is made of.
    """
    file, caption, alt = PICTURE
    parts = [
        "# Beyond one machine",
        INTRODUCTION,
        CLUSTER,
        markdown.figure(file, caption, alt),
        COMMANDS,
        f"## What {CATEGORIES:,} categories need",
    ]
    costs = measure(runs)
    if costs is None:
        parts.append(
            "The runs that this copy of the book was made of do not say on how many cores they ran, so nothing can be worked out here. A new batch run does."
        )
    else:
        parts += [*_measured(costs), *_estimate(costs), LEFT_OUT]
    return markdown.page(parts)


def _measured(costs: Costs) -> list[str]:
    seconds = costs.seconds | {"start of the notebooks": costs.start_seconds}
    rows = [
        (
            f"`{name}`" if name in STAGES else name,
            f"{value:.1f}",
            f"{value / costs.seconds_in_all:.0%}",
        )
        for name, value in seconds.items()
    ]
    rows.append(("**in all**", f"**{costs.seconds_in_all:.1f}**", ""))
    memory = (
        ""
        if costs.peak_mb is None
        else f" No notebook had more than **{_size(costs.peak_mb * 1e6)}** of memory."
    )
    return [
        f"This copy of the book was made of {costs.n_measured} measured categories with {costs.images:.0f} images each, on average, on a machine with {costs.cores} "
        f"cores, {costs.at_a_time} {'category' if costs.at_a_time == 1 else 'categories'} at a time. So long did one take:",
        markdown.table(("Stage", "Seconds", "Share"), rows),
        f"Its run folder has {_size(costs.bytes)} on disk, of which {_size(costs.feature_bytes)} are the kept features.{memory}",
    ]


def _estimate(costs: Costs) -> list[str]:
    n, w = CATEGORIES, costs.at_a_time
    rows = [
        (
            f"{machines:,}",
            f"{machines * w:,}",
            f"{ceil(n / (machines * w)):,}",
            _hours(costs.hours(n, machines)),
        )
        for machines in MACHINES
    ]
    disk = [
        ("everything is kept", _size(n * costs.bytes)),
        ("the features are deleted", _size(n * (costs.bytes - costs.feature_bytes))),
    ]
    memory = (
        "Memory was not measured in these runs."
        if costs.peak_mb is None
        else f"**Memory.** Each worker needs {_size(costs.peak_mb * 1e6)} for its notebook, so a machine with {w} of them {_size(w * costs.peak_mb * 1e6)}, "
        "however many categories there are."
    )
    return [
        f"**Core hours.** A category keeps {costs.threads} {'core' if costs.threads == 1 else 'cores'} for {costs.seconds_in_all:.1f} seconds, so {n:,} of them need "
        f"**{costs.core_hours(n):,.0f} core hours**. More machines do not change this number, which is what a computing centre sends its bill for.",
        "**Hours on the clock.** With $M$ machines and $w$ workers on each, $M w$ categories run at the same time. If $K$ categories take $t$ seconds each, they take",
        "$$T = \\left\\lceil \\frac{K}{M w} \\right\\rceil t,$$",
        "where the brackets $\\lceil\\;\\rceil$ mean *rounded up*: the last round may be only partly filled, and still takes its time. "
        f"For $K$ = {n:,}, $w$ = {w} and $t$ = {costs.seconds_in_all:.1f} s:",
        markdown.table(("Machines", "Workers", "Rounds", "Time"), rows),
        "**Disk.** The features are by far the easiest to make again. After scoring they are only needed to run a later chapter once more without the backbone."
        if costs.feature_bytes > costs.bytes / 2
        else "**Disk.** The features can be made again at any time.",
        markdown.table((f"Of {n:,} categories", "On disk"), disk),
        memory,
    ]


def _is_measured(record: dict) -> bool:
    """Does a run.json say how many images there were, and how long each stage took on how many cores?"""
    entries = [record.get("stages", {}).get(stage, {}) for stage in STAGES]
    return "data" in record and all(
        entry.get(name) for entry in entries for name in ("notebook_seconds", "threads", "cores")
    )


def _sizes(run: FinishedRun) -> tuple[int, int]:
    """Bytes of the features, and of everything else that the five stages left."""
    files = [
        file
        for file in run.folder.rglob("*")
        if file.is_file() and file.stem.split(".")[0] not in STUDIES
    ]
    features = [file for file in files if file.relative_to(run.folder).parts[0] == "features"]
    return sum(file.stat().st_size for file in features), sum(
        file.stat().st_size for file in set(files) - set(features)
    )


def _size(n_bytes: float) -> str:
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if n_bytes >= factor:
            return f"{n_bytes / factor:.3g} {unit}"
    return f"{n_bytes / 1e3:.3g} kB"


def _hours(hours: float) -> str:
    return f"{hours / 24:.1f} days" if hours >= 48 else f"{hours:.1f} hours"
