"""The page of results on real surfaces: from the runs that the book is made of, or the record.

The record is the file that `texad.site.record` has written, `book/real_surfaces.json`; its content
is that of `record.collect`.
"""

from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup
from scipy.stats import binom

from texad.figures import study_plots
from texad.io.json_files import read_json
from texad.model.registry import DETECTORS
from texad.runs.run_folder import save_figure
from texad.site import markdown
from texad.site.record import FILE, check, collect, kind


@dataclass(frozen=True)
class Seeds:
    """The runs of one detector on one category; they differ in their seeds.

    Attributes
    ----------
    detector : str
    weights : str
        Their kind, see `texad.model.weights.kind`.
    runs : list of dict
        As in the record.
    """

    detector: str
    weights: str
    runs: list[dict]

    def known(self, *path: str) -> list[float]:
        """The values of a metric in the runs that know it.

        Parameters
        ----------
        *path : str
            Name of the metric, or the names that lead to it, as
            ``"decisions_by_rule", "sigma", "miss_rate"``.
        """
        found: list = [run["metrics"] for run in self.runs]
        for name in path:
            found = [(entry or {}).get(name) for entry in found]
        return [value for value in found if value is not None]

    def mean(self, *path: str) -> float | None:
        """Mean of the known values of a metric; see `known`."""
        values = self.known(*path)
        return sum(values) / len(values) if values else None

    def spread(self, *path: str, form: str = ".3f") -> Markup:
        """The mean of a metric, and its lowest and highest value if they differ."""
        values = [format(value, form) for value in sorted(self.known(*path))]
        ends = f" ({values[0]} to {values[-1]})" if len({*values}) > 1 else ""
        return markdown.number(self.mean(*path), form) + ends

    @property
    def n_good(self) -> int:
        """How many good test images there are."""
        counts = self.runs[0]["metrics"]["confusion"] or {}
        return counts.get("tn", 0) + counts.get("fp", 0)

    @property
    def rules(self) -> dict[str, float | None]:
        """The rules that decided, and `conformal` if it has a threshold; what each promises."""
        rules = [run["rule"] for run in self.runs if run["rule"]]
        if self.known("decisions_by_rule", "conformal", "threshold"):
            rules.append("conformal")
        promise = self.runs[0]["false_alarms"]
        return {rule: promise if rule == "conformal" else None for rule in rules}

    def chance(self, promise: float) -> tuple[float, float] | None:
        """Between which rates false alarms lie in 95% of tests, if the promise is kept."""
        if not self.n_good:
            return None
        low, high = binom.interval(0.95, self.n_good, promise)
        return low / self.n_good, high / self.n_good

    @property
    def name(self) -> str:
        """The detector, and the weights of its backbone."""
        return f"{self.detector}, {self.weights}"

    @property
    def by_defect(self) -> dict[str, float]:
        """Mean AUROC of each kind of defect that is known."""
        found = [run["metrics"]["auroc_by_defect"] or {} for run in self.runs]
        means = pd.DataFrame(found, dtype=float).mean().dropna()
        return {str(kind): float(auroc) for kind, auroc in means.items()}


def page(runs: Path, folder: Path) -> str:
    """Make the page in Markdown; its picture is saved beside it.

    Parameters
    ----------
    runs : Path
        The runs that the book is made of. If there are some of real surfaces, the page shows them.
    folder : Path
        Where the pages go. Otherwise the page shows the record, which is in the folder above.

    Raises
    ------
    RunError
        If the record does not fit its schema, or a run is damaged.
    """
    content, recorded = results(runs, folder)
    found = by_surface(content)
    surfaces = {name: own for name, own in found.items() if "leak" not in own[0].runs[0]}
    leaks = [
        _leak(own, surfaces, folder / f"leak_{i}.svg")
        for i, own in enumerate(own for name, own in found.items() if name not in surfaces)
    ]
    return markdown.render(
        "real_surfaces",
        runs=content["runs"],
        recorded=recorded,
        picture=_draw(surfaces, folder / "real_surfaces.svg"),
        surfaces=surfaces,
        leaks=leaks,
        columns=dict.fromkeys(seeds.weights for own in surfaces.values() for seeds in own),
        behind=_behind,
        pretraining=_pretraining,
        compared=_compared,
        images=[(run["category"], run["data_sha256"]) for run in content["runs"]],
        weights=[tuple(run["weights"].values()) for run in content["runs"]],
        programs=[tuple(run["versions"].items()) for run in content["runs"]],
        commands=_commands(content["runs"]),
    )


def results(runs: Path, folder: Path) -> tuple[dict, dict]:
    """Collect the results on real surfaces of the runs, or else those that are recorded.

    Parameters
    ----------
    runs, folder : Path
        See `page`.

    Returns
    -------
    content : dict
        As `record.collect` gives it.
    recorded : dict
        The same, if it is the record; else empty.
    """
    content = collect([runs])
    if content["runs"] or not (recorded := read_json(folder.parent / FILE)):
        return content, {}
    check(recorded, folder.parent / FILE)
    return recorded, recorded


def by_surface(content: dict) -> dict[tuple[str, str], list[Seeds]]:
    """Group runs by data set and category, then by detector and weights."""
    surface = itemgetter("dataset", "category")
    return {
        named: [
            Seeds(*detector, list(own))
            for detector, own in groupby(group, lambda run: (run["detector"], kind(run)))
        ]
        for named, group in groupby(sorted(content["runs"], key=surface), surface)
    }


def _behind(own: list[Seeds]) -> dict[str, float] | None:
    """By how much the extended detector is worse than the published one, where it is.

    With the first weights that both ran with; None if they have no kind of defect in common.
    """
    found = {(seeds.detector, seeds.weights): seeds.by_defect for seeds in own}
    used = [weights for name, weights in found if name == "published"]
    both = next((name for name in used if ("extended", name) in found), "")
    published, extended = (found.get((name, both), {}) for name in ("published", "extended"))
    common = [kind for kind in published if kind in extended]
    worse = {kind: published[kind] - extended[kind] for kind in common}
    return {kind: by for kind, by in worse.items() if by > 0.0005} if common else None


def _pretraining(own: list[Seeds]) -> dict[str, dict[str, float]]:
    """Mean image AUROC by weights, of detectors that ran with random ones and with others."""
    auroc = {
        name: {
            seeds.weights: value
            for seeds in reversed(own)
            if seeds.detector == name and (value := seeds.mean("image_auroc")) is not None
        }
        for name in DETECTORS
    }
    return {name: by for name, by in auroc.items() if len(by) > 1 and "random" in by}


def _compared(own: list[Seeds], category: str) -> list[dict]:
    """The rows of chapter 6 on a category, of the first run that has some."""
    runs = [run for seeds in own for run in seeds.runs]
    found = ([row for row in run["comparison"] if row["category"] == category] for run in runs)
    return next(filter(None, found), [])


def _commands(runs: list[dict]) -> list[str]:
    """The commands of runs, those that differ in the seed alone as one."""
    seeds: dict[tuple[str, str], list[str]] = {}
    for run in runs:
        if "leak" not in run:
            before, _, after = run["command"].partition(f" --seed {run['seed']}")
            seeds.setdefault((before, after), []).append(str(run["seed"]))
    return [f"{before} --seed {','.join(of)}{after}" for (before, after), of in seeds.items()]


def _leak(
    leaking: list[Seeds], surfaces: dict[tuple[str, str], list[Seeds]], file: Path
) -> dict[str, Any]:
    """What a split that leaks shows beside the honest one; its picture is drawn."""
    first = leaking[0].runs[0]
    honest = surfaces.get((first["dataset"], first["leak"]["honest"]), [])
    same = [seeds for seeds in honest if seeds.weights == leaking[0].weights]
    shuffled, by_piece = ({row["method"]: row for row in _methods(own)} for own in (leaking, same))
    table = pd.DataFrame(
        [
            {**row, "split": split}
            for split, by_method in (("shuffled", shuffled), ("by piece", by_piece))
            for method, row in by_method.items()
            if method in shuffled
        ],
        columns=["method", "auroc", "low", "high", "split"],
    ).astype({"auroc": float, "low": float, "high": float})
    save_figure(file, study_plots.points_with_intervals(table, "method", "split"))
    changes = {
        method: by_piece[method]["auroc"] - row["auroc"]
        for method, row in shuffled.items()
        if method in by_piece
    }
    changes = dict(sorted(changes.items(), key=itemgetter(1)))
    return first["leak"] | {
        "picture": file.name,
        "n_good": [own[0].n_good for own in (leaking, same) if own],
        "methods": [*changes, *(method for method in shuffled if method not in changes)],
        "splits": [shuffled, by_piece],
        "changes": changes,
        "best": [
            max(changes, key=lambda method: rows[method]["auroc"], default=None)
            for rows in (shuffled, by_piece)
        ],
    }


def _methods(own: list[Seeds]) -> list[dict[str, Any]]:
    """Image AUROC and interval of each detector, and of each rival of chapter 6."""
    rows = []
    for seeds in own:
        low, high = seeds.runs[0]["metrics"]["image_auroc_interval"] or (None, None)
        auroc = seeds.mean("image_auroc")
        rows.append({"method": f"{seeds.detector} detector", "auroc": auroc})
        rows[-1] |= {"low": low, "high": high}
    compared = _compared(own, own[0].runs[0]["category"]) if own else []
    names = ("method", "auroc", "low", "high")
    rows += [
        {name: row[name] for name in names}
        for row in compared
        if not row["method"].startswith("published")
    ]
    return [row for row in rows if row["auroc"] is not None]


def _draw(surfaces: dict[tuple[str, str], list[Seeds]], file: Path) -> str | None:
    """Draw the image AUROC of each detector and seed; the file's name, None if none is known.

    Of each surface only with the weights that come first, or the picture would be too long.
    """
    table = pd.DataFrame(
        [
            (
                (f"{category}, " if len(surfaces) > 1 else "")
                # two short lines fit a phone
                + seeds.name.replace(", ", ",\n"),
                run["seed"],
                run["metrics"]["image_auroc"],
                *(run["metrics"]["image_auroc_interval"] or (None, None)),
            )
            for (_, category), own in surfaces.items()
            for seeds in own
            if seeds.weights == own[0].weights
            for run in seeds.runs
        ],
        columns=["method", "seed", "auroc", "low", "high"],
    ).astype({"auroc": float, "low": float, "high": float})
    if table["auroc"].isna().all():
        return None
    save_figure(file, study_plots.points_with_intervals(table, "method", "seed"))
    return file.name
