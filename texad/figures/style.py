"""Colours, panels and axes that the figures have in common.

Blue is normal and orange is anomalous throughout: two colours that stay apart for colour-blind
readers (Okabe and Ito, "Color universal design", 2008), with different shapes or line styles beside
them, for print without colour.
"""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

NORMAL, ANOMALOUS, THRESHOLD, GUESSING = "#0072B2", "#D55E00", "#000000", "#777777"
COLORS = (NORMAL, ANOMALOUS, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vP"  # one fewer than colours, so that many groups still get pairs of their own

plt.rcParams |= {
    "figure.dpi": 110,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 11,
    "legend.frameon": False,
}


def one_panel(width: float, height: float, **settings: Any) -> tuple[Figure, Axes]:
    """Make a figure with one panel.

    It is closed for pyplot, so that a notebook shows it only once, as the value of its cell.

    Parameters
    ----------
    width, height : float
        Size of the figure in inches.
    **settings
        Labels, limits and the like, as `Axes.set` takes them.
    """
    figure, axis = plt.subplots(figsize=(width, height), layout="constrained")
    axis.set(**settings)
    plt.close(figure)
    return figure, axis


def panels(n: int, columns: int, size: float) -> tuple[Figure, list[Axes]]:
    """Make a figure with `n` panels without axes, row by row; without images, with one empty panel.

    Parameters
    ----------
    n, columns : int
        Number of panels, and how many of them are side by side.
    size : float
        Width of a panel in inches; its title takes 0.3 inches of the height in addition.
    """
    columns = max(1, min(n, columns))
    rows = max(1, -(-n // columns))
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(size * columns, (size + 0.3) * rows),
        squeeze=False,
        layout="constrained",
    )
    plt.close(figure)
    for axis in axes.flat:
        axis.set_axis_off()
    return figure, list(axes.flat[:n])


def score_axis(axis: Axes, values: np.ndarray | Sequence[float]) -> None:
    """Make the horizontal axis one of scores: logarithmic, with plain numbers, if all are above 0.

    Parameters
    ----------
    axis : Axes
    values : array_like, shape (N,)
        What is drawn along the axis.
    """
    axis.set_xlabel("anomaly score")
    if not len(values) or np.min(values) <= 0:
        return
    axis.set_xscale("log")
    is_wide = np.max(values) > 5 * np.min(values)  # else there might be no 1, 2 or 5 in it
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if is_wide else MaxNLocator(5))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())


def threshold_line(axis: Axes, threshold: float) -> None:
    """Draw a vertical line at the threshold, with its name above."""
    axis.axvline(threshold, color=THRESHOLD, linestyle="--", linewidth=1.5)
    label_above(axis, threshold, "threshold")


def label_above(axis: Axes, x: float, text: str) -> None:
    """Write a text above the panel, for a vertical line at `x`."""
    axis.text(
        x,
        1.01,
        text,
        transform=axis.get_xaxis_transform(),
        ha="center",
        va="bottom",
        fontsize=9,
    )


def outline(axis: Axes, mask: np.ndarray | None) -> None:
    """Draw the border of a defect, dark under light, so that it shows on any surface."""
    if mask is not None and mask.any() and not mask.all():
        axis.contour(mask, levels=[0.5], colors="black", linewidths=2.4)
        axis.contour(mask, levels=[0.5], colors="#56E3FF", linewidths=1.2)
