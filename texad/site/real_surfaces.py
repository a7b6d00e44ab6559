"""The page of results on real surfaces: from the runs that the book is made of, else from the record.

The record is the file that `texad.site.record` has written, `book/real_surfaces.json`; both have the same content.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from texad.figures import study_plots
from texad.io.atomic import replacing
from texad.io.json_files import read_json
from texad.model.autoencoder import DETECTORS
from texad.model.scoring import RULES
from texad.site import markdown
from texad.site.record import FILE, check, collect, is_random

INTRODUCTION = """\
A program drew the synthetic textures of this book, and their defects too. What works on a drawing may fail on a photograph, so here are the results on
photographs of real surfaces. The *published* detector is that of chapters 3 and 4, the *extended* one that of chapter 8. Where a detector ran with several
*seeds*, that is with other random choices on the same images, the tables show the mean over them, and in brackets the lowest and the highest value."""

UNTAUGHT = " with random weights"

# what is known of a data set or a category by its name
ABOUT = {
    "mvtec": "MVTec AD shows industrial products under real light {cite:p}`bergmann2019mvtec`.",
    "magnetic_tile": "Magnetic tiles are the curved magnets of electric motors. Huang, Qiu and Yuan photographed them in grey, good ones and "
    "damaged ones, in many sizes {cite:p}`huang2020magnetic`. Their test results were in view while the extended detector was developed, so they flatter it.",
}


def page(runs: Path, folder: Path) -> str:
    """The page in Markdown; its picture is saved beside.

    Parameters
    ----------
    runs : Path
        The runs that the book is made of. If there are some of real surfaces, the page shows them.
    folder : Path
        Where the pages go. In the folder above lies the record, which the page shows otherwise.

    Raises
    ------
    RunError
        If the record does not fit its schema, or a run is damaged.
    """
    content = collect([runs])
    if made_here := bool(content["runs"]):
        origin = "These runs lie beside those that this copy of the book was made of."
    else:
        content = read_json(folder.parent / FILE)
        if not content:
            missing = "This copy of the book was made without real surfaces, and no earlier results on some are recorded."
            return markdown.page(
                [
                    "# Real surfaces",
                    f"{missing} [](../your_data.md) says how to make it with yours.",
                ]
            )
        check(content, folder.parent / FILE)
        origin = (
            f"This copy of the book was made without real surfaces, so it shows the last recorded results. They were "
            f"recorded on {content['date']} with texad {markdown.text(content['texad'])}. [](../your_data.md) says how to make the book with yours."
        )
    groups: dict[tuple[str, str], list[dict]] = {}
    for run in content["runs"]:
        groups.setdefault((run["dataset"], run["category"]), []).append(run)
    all_random = all(map(is_random, content["runs"]))
    parts = [
        "# Real surfaces",
        INTRODUCTION,
        origin,
        markdown.warning(content["runs"][0]["weights"]) if all_random else "",
        *_picture(content["runs"], len(groups) > 1, folder),
    ]
    for group in groups.values():
        parts += _category(group)
    parts += ["## Where these numbers come from", *_provenance(content["runs"])]
    if not made_here:
        parts.append(
            f"All numbers of this page stand in `book/{FILE}`, which `python -m texad record` has written."
        )
    return markdown.page(parts)


def _picture(runs: list[dict], name_category: bool, folder: Path) -> list[str]:
    rows = []
    for run in runs:
        auroc, (low, high) = (
            run["metrics"]["image_auroc"],
            run["metrics"]["image_auroc_interval"] or (None, None),
        )
        name = (f"{run['category']}, " if name_category else "") + _name(run).replace(
            UNTAUGHT, f"\n{UNTAUGHT.strip()}"
        )  # two short lines fit a phone
        rows.append({"method": name, "seed": run["seed"], "auroc": auroc, "low": low, "high": high})
    table = pd.DataFrame(rows).astype({"auroc": float, "low": float, "high": float})
    if table["auroc"].isna().all():
        return []
    with replacing(folder / "real_surfaces.svg") as temporary:
        figure = study_plots.points_with_intervals(table, "method", "seed")
        figure.savefig(temporary, bbox_inches="tight", metadata={"Date": None})
    alt = "A row for each detector, with a dot for each seed at its image AUROC and a line through the dot for the interval."
    return [
        markdown.figure(
            "real_surfaces.svg",
            "Image AUROC of each detector and seed, with its 95% interval.",
            alt,
        ),
        "*What to look for:* dots that lie close together while their lines are long. Then the seed matters little, and what we do not know comes from the number "
        "of test images.",
    ]


def _category(group: list[dict]) -> list[str]:
    """A section on one category: its data, both detectors side by side, and where they lose."""
    first, name = group[0], markdown.text(group[0]["category"])
    detectors: dict[str, list[dict]] = {}
    for run in group:  # in the order of the record
        detectors.setdefault(_name(run), []).append(run)
    about = ABOUT.get(first["dataset"]) or ABOUT.get(first["category"]) or ""
    counts = (
        f"The detectors learnt from {first['n_train']} good images, {first['n_calibration']} more were kept out to set thresholds with, and {first['n_test']} "
        "images were for testing."
    )
    kinds = list(
        dict.fromkeys(kind for run in group for kind in run["metrics"]["auroc_by_defect"] or {})
    )
    by_defect = [
        (markdown.text(kind), *(_spread(_of_kind(runs, kind)) for runs in detectors.values()))
        for kind in kinds
    ]
    parts = [
        f"## {name}",
        f"{about} {counts}".strip(),
        markdown.table(("Measure", *detectors), _measures(detectors)),
    ]
    if by_defect:
        parts += [
            f"### Each kind of defect of {name}",
            "AUROC of its images against the good ones:",
        ]
        parts.append(markdown.table(("Kind of defect", *detectors), by_defect))
    parts.append(_losses(name, detectors, kinds))
    if rows := next((rows for run in group if (rows := _compared(run))), []):
        parts += [
            f"### Other methods on {name}",
            "The comparison of chapter 6, made on the same images. *False alarms* are those at the threshold of the rule `conformal`.",
            markdown.table(
                (
                    "Method",
                    "AUROC",
                    "95% interval",
                    "AUPRO",
                    "False alarms",
                    "Fit, s",
                    "Stored, MB",
                ),
                rows,
            ),
        ]
    return parts


def _measures(detectors: dict[str, list[dict]]) -> list[tuple[str, ...]]:
    """The rows of a category's table, a column for each detector."""

    def row(label: str, text: Callable[[list[dict]], str]) -> tuple[str, ...]:
        return (label, *(text(runs) for runs in detectors.values()))

    def metric(name: str) -> Callable[[list[dict]], str]:
        return lambda runs: _spread([run["metrics"][name] for run in runs])

    def interval(runs: list[dict]) -> str:
        ends = runs[0]["metrics"]["image_auroc_interval"]
        return f"{ends[0]:.3f} to {ends[1]:.3f}" if ends else "–"

    rows = [
        row("Seeds", lambda runs: ", ".join(str(run["seed"]) for run in runs)),
        row("Image AUROC", metric("image_auroc")),
        row("Its 95% interval, first seed", interval),
        row("Average precision", metric("average_precision")),
        row("Pixel AUROC", metric("pixel_auroc")),
        row("AUPRO", metric("aupro")),
        row(
            "Rule that decides",
            lambda runs: (
                ", ".join(dict.fromkeys(f"`{run['rule']}`" for run in runs if run["rule"])) or "–"
            ),
        ),
    ]
    alphas = dict.fromkeys(
        f"{run['false_alarms']:g}"
        for runs in detectors.values()
        for run in runs
        if run["false_alarms"]
    )
    for rule in RULES:
        promise = f" ($\\alpha$ = {', '.join(alphas)})" if rule == "conformal" and alphas else ""
        for label, rate in (("False alarms", "false_alarm_rate"), ("Misses", "miss_rate")):
            rows.append(row(f"{label}, `{rule}`{promise}", partial(_mean_at, rule, rate)))
    return rows


def _losses(name: str, detectors: dict[str, list[dict]], kinds: list[str]) -> str:
    """Where each detector is weakest, in words."""
    lines, means = [f"Where they lose on {name}:"], {}
    for detector, runs in detectors.items():
        means[detector] = {
            kind: mean for kind in kinds if (mean := _mean(_of_kind(runs, kind))) is not None
        }
        over = f", on average over {len(runs)} seeds," if len(runs) > 1 else ""
        if means[detector]:
            kind, worst = min(means[detector].items(), key=lambda item: item[1])
            lines.append(
                f"The {_spoken(detector)} is weakest on *{markdown.text(kind)}*, with an AUROC{over} of **{worst:.3f}**."
            )
        alarms, misses = (
            _mean([run["metrics"][rate] for run in runs])
            for rate in ("false_alarm_rate", "miss_rate")
        )
        said = [f"rejects {_percent(alarms)} of the good images"] if alarms is not None else []
        said += [f"misses {_percent(misses)} of the defective ones"] if misses is not None else []
        if said:
            lines.append(
                f"With the rule that decides, it {' and '.join(said)}."
                if means[detector]
                else f"The {_spoken(detector)} {' and '.join(said)}."
            )
    if means.keys() >= {*DETECTORS}:
        published, extended = (means[detector] for detector in DETECTORS)
        behind = [
            kind
            for kind in published
            if kind in extended and extended[kind] < published[kind] - 0.0005
        ]
        listed = ", ".join(
            f"*{markdown.text(kind)}* (by {published[kind] - extended[kind]:.3f})"
            for kind in behind
        )
        if behind:
            lines.append(f"The extended detector is behind the published one on {listed}.")
        elif published.keys() & extended.keys():
            lines.append("On no kind of defect is the extended detector behind the published one.")
    for detector in DETECTORS:
        aurocs = [
            _mean([run["metrics"]["image_auroc"] for run in detectors.get(key, [])])
            for key in (detector, detector + UNTAUGHT)
        ]
        if None not in aurocs:
            lines.append(
                f"What pre-training is worth: the AUROC of the {detector} detector is {aurocs[1]:.3f} with random weights and {aurocs[0]:.3f} with trained ones."
            )
    return " ".join(lines) if len(lines) > 1 else ""


def _name(run: dict) -> str:
    return str(run["detector"]) + (UNTAUGHT if is_random(run) else "")


def _spoken(name: str) -> str:
    return f"{name.removesuffix(UNTAUGHT)} detector{UNTAUGHT if name.endswith(UNTAUGHT) else ''}"


def _compared(run: dict) -> list[tuple[str, ...]]:
    """The rows of chapter 6 on this run's category, as text."""
    return [
        (
            markdown.text(row["method"]),
            markdown.number(row["auroc"]),
            f"{row['low']:.3f} to {row['high']:.3f}"
            if row["low"] is not None and row["high"] is not None
            else "–",
            markdown.number(row["aupro"]),
            _percent(row["false_alarm_rate"]),
            *(
                "–" if row[name] is None else f"{row[name]:.1f}"
                for name in ("fit_seconds", "megabytes")
            ),
        )
        for row in run["comparison"]
        if row["category"] == run["category"]
    ]


def _provenance(runs: list[dict]) -> list[str]:
    """Which images, which weights, which programs, and what to type to make the numbers again."""
    lines = [
        f"- Images of {markdown.text(run['category'])}: sha256 `{run['data_sha256'][:12]}…` over all files."
        for run in runs
    ]
    lines += [
        f"- Weights: {markdown.text(run['weights']['name'])}, sha256 `{run['weights']['sha256'][:12]}…`."
        for run in runs
    ]
    lines += [
        "- Programs: "
        + ", ".join(f"{name} {markdown.text(version)}" for name, version in run["versions"].items())
        + "."
        for run in runs
    ]
    commands = "\n".join(dict.fromkeys(run["command"] for run in runs))
    where = [
        f"`{mark}` is {what}"
        for mark, what in (
            ("<folder>", "the folder of the data set"),
            ("<weights>", "the file of weights"),
        )
        if mark in commands
    ]
    made = f"Made by the following commands, each with an `--out` of its own{'; ' if where else ''}{', '.join(where)}:"
    return ["\n".join(dict.fromkeys(lines)), made, markdown.fenced(commands)]


def _of_kind(runs: list[dict], kind: str) -> list[float | None]:
    return [(run["metrics"]["auroc_by_defect"] or {}).get(kind) for run in runs]


def _at(runs: list[dict], rule: str, rate: str) -> list[float | None]:
    """A rate of each run at the threshold of a rule; None where the rule has no threshold."""
    return [((run["metrics"]["decisions_by_rule"] or {}).get(rule) or {}).get(rate) for run in runs]


def _mean_at(rule: str, rate: str, runs: list[dict]) -> str:
    return _percent(_mean(_at(runs, rule, rate)))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _spread(values: list[float | None]) -> str:
    """The mean, and the lowest and highest value if there are several."""
    known = [value for value in values if value is not None]
    ends = f" ({min(known):.3f} to {max(known):.3f})" if len(known) > 1 else ""
    return markdown.number(_mean(known)) + ends


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"
