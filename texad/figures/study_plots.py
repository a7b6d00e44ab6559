"""Figures of the studies, chapters 6 to 9: many results side by side, each with its interval.

As in `texad.figures.plots`, every function draws what it is given and returns a matplotlib figure.
Groups differ in colour, for colour-blind readers too, and in marker, for print.
"""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from texad.figures.style import COLORS, MARKERS, one_panel
from texad.io.escape import for_picture


def points_with_intervals(
    table: pd.DataFrame,
    rows: str = "method",
    groups: str | None = None,
    xlabel: str = "image AUROC",
) -> Figure:
    """Dot plot: a row for each method (or setting), in it a point for each AUROC with its interval.

    Parameters
    ----------
    table : DataFrame
        Columns `auroc`, `low`, `high`, and those named by `rows` and `groups`. Where `auroc` is
        missing, nothing is drawn.
    rows : str, default "method"
        Column that names the row; rows are in the order in which the table names them first, from
        above.
    groups : str, optional
        Column that tells the points of a row apart, for instance "category".
    xlabel : str, default "image AUROC"
    """
    names = list(dict.fromkeys(table[rows].astype(str)))
    kinds = list(dict.fromkeys(table[groups])) if groups else [None]
    # one below the other within a row
    steps = np.linspace(-0.3, 0.3, len(kinds)) if len(kinds) > 1 else [0.0]
    figure, axis = one_panel(
        7,
        max(0.5, 0.16 * len(kinds)) * len(names) + 1.2,
        xlabel=xlabel,
        yticks=range(len(names)),
        yticklabels=list(map(for_picture, names)),
        ylim=(len(names) - 0.5, -0.5),
    )
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
            label=for_picture(kind),
            markersize=6,
            clip_on=False,
            zorder=3,
        )
    for border in np.arange(1, len(names)) - 0.5:
        axis.axhline(border, color="#DDDDDD", linewidth=0.8)
    axis.set_xlim(right=min(axis.get_xlim()[1], 1.005))
    axis.tick_params(axis="y", length=0)
    if groups:
        axis.legend(title=groups, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def coloured_table(table: pd.DataFrame) -> Figure:
    """AUROCs as a table in which low ones are dark.

    Parameters
    ----------
    table : DataFrame of float
        Rows and columns are named by their labels. A missing value is an empty field.
    """
    figure, axis = one_panel(2.2 + 1.25 * table.shape[1], 1.0 + 0.4 * table.shape[0])
    sns.heatmap(
        table.astype(float),
        annot=True,
        fmt=".3f",
        cmap="Blues_r",
        vmin=0.5,
        vmax=1,
        cbar=False,
        linewidths=1,
        xticklabels=list(map(for_picture, table.columns)),
        yticklabels=list(map(for_picture, table.index)),
        ax=axis,
    )
    axis.tick_params(length=0, labelrotation=0)
    axis.set(xlabel="", ylabel="")
    return figure
