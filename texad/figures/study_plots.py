"""Pictures of the studies, chapters 6 to 9: many results side by side, each with its interval.

As in `plotting`, every function draws what it is given, computes nothing, and returns a matplotlib figure. Groups differ in colour
and in marker: the colours stay apart for colour-blind readers (Okabe and Ito, "Color universal design", 2008), the markers in print.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vP"  # one fewer than colours, so that many groups still get pairs of their own


def points_with_intervals(
    table: pd.DataFrame,
    rows: str = "method",
    groups: str | None = None,
    xlabel: str = "image AUROC",
) -> Figure:
    """A dot plot: a row for each method (or setting), a point for each AUROC, its interval as a line through the point.

    Parameters
    ----------
    table : DataFrame
        Columns `auroc`, `low`, `high`, and those named by `rows` and `groups`. Where `auroc` is missing, nothing is drawn.
    rows : str, default "method"
        The column that names the row; rows stand in the order in which the table names them first, from above.
    groups : str, optional
        The column that tells the points of a row apart, for instance "category".
    xlabel : str, default "image AUROC"

    Raises
    ------
    ValueError
        If the table has no row, or lacks a column.
    """
    missing = {rows, "auroc", "low", "high", *([groups] if groups else [])} - set(table.columns)
    if missing or table.empty:
        lacks = f"the columns {', '.join(sorted(missing))}" if missing else "rows"
        raise ValueError(
            f"table lacks {lacks}; it has the columns {', '.join(map(str, table.columns))}"
        )
    names = list(dict.fromkeys(table[rows].astype(str)))
    kinds = list(dict.fromkeys(table[groups])) if groups else [None]
    steps = (
        np.linspace(-0.3, 0.3, len(kinds)) if len(kinds) > 1 else [0.0]
    )  # one below the other within a row
    height = max(0.5, 0.16 * len(kinds)) * len(names) + 1.2
    figure, axis = plt.subplots(figsize=(7, height), layout="constrained")
    for i, (kind, step) in enumerate(zip(kinds, steps, strict=True)):
        part = (table if kind is None else table[table[groups] == kind]).dropna(subset="auroc")
        at = np.array([names.index(str(name)) for name in part[rows]], dtype=float) + step
        color, marker = COLORS[i % len(COLORS)], MARKERS[i % len(MARKERS)]
        axis.hlines(at, part["low"], part["high"], color=color, linewidth=1.6, alpha=0.7)
        axis.plot(
            part["auroc"],
            at,
            marker,
            color=color,
            markersize=6,
            label=_plain(kind),
            clip_on=False,
            zorder=3,
        )
    for border in np.arange(1, len(names)) - 0.5:
        axis.axhline(border, color="#DDDDDD", linewidth=0.8)
    axis.set(
        xlabel=xlabel,
        yticks=range(len(names)),
        yticklabels=[_plain(name) for name in names],
        ylim=(len(names) - 0.5, -0.5),
    )
    axis.set_xlim(right=min(axis.get_xlim()[1], 1.005))
    axis.tick_params(axis="y", length=0)
    if groups:
        axis.legend(title=groups, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    plt.close(figure)  # a notebook then shows it once, as the value of its cell
    return figure


def coloured_table(table: pd.DataFrame) -> Figure:
    """AUROCs as a table in which low ones are dark.

    Parameters
    ----------
    table : DataFrame of float
        Rows and columns are named by their labels. A missing value is an empty field.
    """
    names = [[_plain(name) for name in labels] for labels in (table.index, table.columns)]
    figure, axis = plt.subplots(
        figsize=(2.2 + 1.25 * table.shape[1], 1.0 + 0.4 * table.shape[0]), layout="constrained"
    )
    sns.heatmap(
        table.astype(float), annot=True, fmt=".3f", cmap="Blues_r", vmin=0.5, vmax=1, cbar=False, linewidths=1,
        yticklabels=names[0], xticklabels=names[1], ax=axis,
    )  # fmt: skip
    axis.tick_params(length=0, labelrotation=0)
    axis.set(xlabel="", ylabel="")
    plt.close(figure)
    return figure


def _plain(name: object) -> str:
    """A name as it is: matplotlib would set what stands between two dollar signs as mathematics."""
    return str(name).replace("$", r"\$")
